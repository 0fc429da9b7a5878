//! Settings in environment variables, `TALLOW_` and the key in capital letters.
//!
//! Not every such variable is meant as a setting. Kubernetes tells every container of a namespace about its services:
//! for one that is called `tallow` there are `TALLOW_SERVICE_HOST`, `TALLOW_PORT=tcp://10.0.0.1:80`,
//! `TALLOW_PORT_80_TCP_ADDR` and more. What names no setting is therefore left out with a warning, and so is a
//! `TALLOW_PORT` that is an address.
use super::keys::{kind, nearest};
use std::ffi::OsString;

/// The begin of the names of all variables that are read.
pub const PREFIX: &str = "TALLOW_";

/// Variables that are not settings: they are read before there are any, or by the engine itself.
const NON_SETTINGS: [&str; 4] = ["LOG", "LOG_FORMAT", "CONFIG", "CACHE_DIR"];

/// The variables of an environment, told apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Variables {
    /// Keys and values of settings.
    pub settings: Vec<(String, String)>,
    /// Names that are left out, each with a spelling that may have been meant.
    ignored: Vec<(String, Option<&'static str>)>,
}

impl Variables {
    /// Tells the variables of an environment apart.
    pub fn of(environment: impl Iterator<Item = (OsString, OsString)>) -> Self {
        let mut variables = Variables::default();
        for (name, value) in environment {
            let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
            let Some(rest) = name.strip_prefix(PREFIX) else { continue };
            let key = rest.to_lowercase();
            match kind(&key) {
                _ if NON_SETTINGS.contains(&rest) => {}
                Some(_) if !(key == "port" && is_address(&value)) => variables.settings.push((key, value.into_owned())),
                Some(_) => variables.ignored.push((name.into_owned(), None)),
                None => {
                    let meant = if is_service_link(rest) { None } else { nearest(&key) };
                    variables.ignored.push((name.into_owned(), meant));
                }
            }
        }
        variables.settings.sort();
        variables.ignored.sort();
        variables
    }

    /// What a user should know of the variables that are left out.
    pub fn warning(&self) -> Option<String> {
        let names: Vec<&str> = self.ignored.iter().map(|(name, _)| name.as_str()).collect();
        let mut warning = format!("{} set in the environment, but no setting; left out", names.join(", "));
        for (name, meant) in &self.ignored {
            if let Some(meant) = meant {
                warning += &format!("; {name}: did you mean {PREFIX}{}?", meant.to_uppercase());
            }
        }
        (!names.is_empty()).then_some(warning)
    }
}

/// Whether a value is the address of a Kubernetes service.
fn is_address(value: &str) -> bool {
    ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme))
}

/// Whether the rest of a name has the form that Kubernetes gives to what it tells of a service.
fn is_service_link(rest: &str) -> bool {
    let ends = ["SERVICE_HOST", "SERVICE_PORT", "PORT"];
    ends.iter().any(|end| rest.ends_with(end))
        || rest.contains("SERVICE_PORT_")
        || ["_TCP", "_UDP", "_SCTP"].iter().any(|protocol| rest.contains(protocol) && rest.contains("PORT_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Variables {
        Variables::of(pairs.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))))
    }

    /// The variables of a service `tallow` with a named port, and of one `tallow-model`
    /// (`pkg/kubelet/envvars/envvars.go` of Kubernetes).
    #[test]
    fn what_kubernetes_tells_of_services_is_left_out() {
        let links = [
            ("TALLOW_SERVICE_HOST", "10.0.0.11"),
            ("TALLOW_SERVICE_PORT", "8000"),
            ("TALLOW_SERVICE_PORT_HTTP", "8000"),
            ("TALLOW_PORT", "tcp://10.0.0.11:8000"),
            ("TALLOW_PORT_8000_TCP", "tcp://10.0.0.11:8000"),
            ("TALLOW_PORT_8000_TCP_PROTO", "tcp"),
            ("TALLOW_PORT_8000_TCP_PORT", "8000"),
            ("TALLOW_PORT_8000_TCP_ADDR", "10.0.0.11"),
            ("TALLOW_MODEL_SERVICE_HOST", "10.0.0.12"),
            ("TALLOW_MODEL_PORT", "udp://10.0.0.12:53"),
            ("TALLOW_MODEL_PORT_53_UDP", "udp://10.0.0.12:53"),
        ];
        let variables = of(&links);
        assert_eq!(variables.settings, []);
        let warning = variables.warning().unwrap();
        assert!(links.iter().all(|(name, _)| warning.contains(name)) && !warning.contains("mean"), "{warning}");
    }

    #[test]
    fn settings_are_read_beside_what_is_left_out() {
        let variables = of(&[
            ("TALLOW_PORT", "9000"),
            ("TALLOW_HOST", "::1"),
            ("TALLOW_LOG", "debug"),
            ("TALLOW_MAX_NUM_SEQ", "3"),
            ("HOME", "/root"),
        ]);
        let settings = [("host", "::1"), ("port", "9000")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(variables.settings, settings);
        let warning = variables.warning().unwrap();
        assert!(warning.contains("TALLOW_MAX_NUM_SEQ: did you mean TALLOW_MAX_NUM_SEQS?"), "{warning}");
        assert_eq!(of(&[("TALLOW_LOG", "debug")]).warning(), None);
    }
}
