//! The metrics of several servers as those of one.

/// Puts texts in Prometheus's form together: each metric is described once, and its samples follow each other.
/// The labels must tell the texts' samples apart.
pub fn merge(texts: &[String]) -> String {
    let mut families: Vec<(&str, Vec<&str>, Vec<&str>)> = Vec::new();
    for text in texts {
        let mut current = 0;
        for line in text.lines().filter(|line| !line.is_empty()) {
            match description(line) {
                Some(name) => {
                    let known = families.iter().position(|(family, ..)| *family == name);
                    current = known.unwrap_or(families.len());
                    if known.is_none() {
                        families.push((name, Vec::new(), Vec::new()));
                    }
                    let about = &mut families[current].1;
                    if !about.iter().any(|known| kind_of(known) == kind_of(line)) {
                        about.push(line);
                    }
                }
                // A sample stands after the description of its metric.
                None => {
                    if let Some((.., samples)) = families.get_mut(current) {
                        samples.push(line);
                    }
                }
            }
        }
    }
    let lines = families.iter().flat_map(|(_, about, samples)| about.iter().chain(samples));
    lines.map(|line| format!("{line}\n")).collect()
}

/// The metric that a line describes; `None` for a sample.
fn description(line: &str) -> Option<&str> {
    line.strip_prefix("# ")?.split(' ').nth(1)
}

/// `HELP` or `TYPE`.
fn kind_of(line: &str) -> Option<&str> {
    line.split(' ').nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_described_once_with_all_its_samples() {
        let text = |model: &str| {
            format!(
                "# HELP a Some words.\n# TYPE a counter\na{{m=\"{model}\"}} 1\n\n# TYPE h histogram\n\
                 h_bucket{{m=\"{model}\"}} 2\nh_sum{{m=\"{model}\"}} 3\n"
            )
        };
        let own = "# TYPE front gauge\nfront 1\n".to_owned();
        let merged = "# TYPE front gauge\nfront 1\n# HELP a Some words.\n# TYPE a counter\na{m=\"x\"} 1\na{m=\"y\"} 1\n\
                      # TYPE h histogram\nh_bucket{m=\"x\"} 2\nh_sum{m=\"x\"} 3\n\
                      h_bucket{m=\"y\"} 2\nh_sum{m=\"y\"} 3\n";
        assert_eq!(merge(&[own, text("x"), text("y")]), merged);
        assert_eq!(merge(&[]), "");
    }
}
