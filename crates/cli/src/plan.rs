//! `tallow plan`: what serving a model would take of memory, by the headers of its files.
use crate::args::PlanArgs;
use crate::model::{self, ModelSource};
use crate::output;
use crate::settings::Settings;
use anyhow::{Context, Result};
use engine::{EngineConfig, Forecast, MemoryTerm, PresetForecast, StartPlan};
use serde_json::{Value, json};
use std::fmt::Write;

/// Characters of the bar that shows the memory.
const BAR: u64 = 60;

/// Prints what `tallow serve` with the same flags would settle, and what each preset would give.
///
/// Errors: what `tallow serve` would refuse before it reads weights, once the table has been printed where the model's
/// headers give one.
pub async fn plan(args: PlanArgs) -> Result<()> {
    let settings = Settings::of_serving(&args.serve)?;
    // Headers of a model of the hub that is not here come into this folder, which ends with the plan.
    let folder = tempfile::tempdir().context("no folder for the headers can be made")?;
    let source = ModelSource::of(&settings)?;
    let config = model::headers(&settings, source, folder.path()).await?;
    let machine = args.machine.map(|mac| mac.memory());
    let forecast = engine::forecast(&config, machine).map_err(|error| settings.explain(error))?;
    match args.json {
        true => output::line(format_args!("{:#}", as_json(&config, &forecast))),
        false => output::print(format_args!("{}", table(&config, &forecast)?)),
    }
    forecast.start.map(|_| ()).map_err(|error| settings.explain(error))
}

fn as_json(config: &EngineConfig, forecast: &Forecast) -> Value {
    let terms = |terms: &[MemoryTerm]| -> Value {
        terms.iter().map(|term| json!({"name": term.name, "bytes": term.bytes})).collect()
    };
    let kv = |kv: &engine::KvPlan| {
        json!({
            "k": kv.pair.k.name(), "v": kv.pair.v.name(), "bytes_per_token": kv.layout.bytes_per_token(),
            "block_size": kv.layout.block_size(), "bytes_per_block": kv.layout.bytes_per_block(),
            "num_blocks": kv.budget.num_blocks, "num_snapshots": kv.budget.num_snapshots,
            "max_model_len": kv.budget.max_model_len,
        })
    };
    let preset = |row: &PresetForecast| {
        json!({
            "preset": row.preset.name, "kl": row.kl, "max_context": row.max_context,
            "start": row.plan.as_ref().ok().map(kv),
            "refusal": row.plan.as_ref().err().map(ToString::to_string),
        })
    };
    let start = forecast.start.as_ref();
    json!({
        "model": config.model_name(),
        "model_type": forecast.model_type,
        "trained_context": forecast.model_limit,
        "total_memory": forecast.total_memory,
        "free_memory": forecast.free_memory,
        "state_bytes_per_sequence": forecast.state_bytes,
        "needs_beside_cache": terms(&forecast.needs),
        "presets": forecast.presets.iter().map(preset).collect::<Value>(),
        "start": start.ok().map(|plan| kv(&plan.kv)),
        "memory": start.ok().map(|plan| terms(&plan.terms)),
        "reason": start.ok().and_then(|plan| plan.kv.reason.as_deref()),
        "refusal": start.err().map(ToString::to_string),
    })
}

fn table(config: &EngineConfig, forecast: &Forecast) -> Result<String> {
    let mut out = String::new();
    let name = config.model_name();
    let limit = grouped(forecast.model_limit);
    writeln!(out, "{name}: {}, made for contexts up to {limit} tokens\n", forecast.model_type)?;
    let start = forecast.start.as_ref().ok();
    let terms = start.map_or(&forecast.needs, |plan| &plan.terms);
    for term in terms.iter().filter(|term| term.bytes > 0) {
        writeln!(out, "{:<36}{:>12}", term.name, mib(term.bytes))?;
    }
    let needed = terms.iter().map(|term| term.bytes).sum();
    writeln!(out, "{:<36}{:>12}", "in all", mib(needed))?;
    if let Some(free) = forecast.free_memory {
        writeln!(out, "{:<36}{:>12}", "free for a server", mib(free))?;
    }
    if let Some(total) = forecast.total_memory {
        writeln!(out, "{:<36}{:>12}\n", "the machine, or the container", mib(total))?;
        writeln!(out, "{}", bar(terms, forecast.free_memory.unwrap_or(total), total))?;
    }
    writeln!(out, "\n{:<15}{:<11}{:>13}{:>15}  KL, nats", "preset", "K/V", "bytes/token", "context")?;
    for row in &forecast.presets {
        let bytes = row.plan.as_ref().map_or(String::new(), |plan| format!("{:.0}", plan.layout.bytes_per_token()));
        let kl = row.kl.map_or("-".to_owned(), |kl| format!("{kl:.4}"));
        let pair = row.preset.pair;
        let is_taken = start.is_some_and(|plan| plan.kv.pair == pair);
        let taken = if is_taken { "  <- serve takes this" } else { "" };
        let (preset, pair, context) = (row.preset.name, pair.to_string(), grouped(row.max_context));
        writeln!(out, "{preset:<15}{pair:<11}{bytes:>13}{context:>15}  {kl}{taken}")?;
    }
    if let Some(plan) = start {
        writeln!(out, "\n{}", settled(plan, forecast.state_bytes))?;
    }
    Ok(out)
}

/// What a start settles, in sentences.
fn settled(plan: &StartPlan, state_bytes: u64) -> String {
    let (kv, budget) = (&plan.kv, plan.kv.budget);
    let (block_size, block_bytes) = (kv.layout.block_size(), kv.layout.bytes_per_block());
    let tokens = budget.num_blocks * block_size;
    let mut out = format!(
        "Serving takes K {} V {}: {} blocks of {block_size} tokens, {block_bytes} bytes each.\nThey hold {} tokens, {} \
         in one request at most.\n",
        kv.pair.k.name(),
        kv.pair.v.name(),
        grouped(budget.num_blocks),
        grouped(tokens),
        grouped(budget.max_model_len),
    );
    if state_bytes > 0 {
        out += &format!(
            "A sequence's recurrent states take {}; there are {} snapshots.\n",
            mib(state_bytes),
            budget.num_snapshots
        );
    }
    out + &kv.reason.as_ref().map(|reason| format!("Why: {reason}.")).unwrap_or_default()
}

/// The machine's memory as a bar, with what its characters stand for.
fn bar(terms: &[MemoryTerm], free: u64, total: u64) -> String {
    let sum = |is_in: fn(&str) -> bool| terms.iter().filter(|t| is_in(t.name)).map(|t| t.bytes).sum::<u64>();
    let weights = sum(|name| name.starts_with("weights"));
    let cache = sum(|name| ["KV cache", "recurrent states", "snapshots"].contains(&name));
    let all = sum(|_| true);
    let parts = [
        ('█', "weights", weights),
        ('▓', "cache", cache),
        ('▒', "the rest", all - weights - cache),
        ('░', "left free", free.saturating_sub(all)),
        ('·', "taken by others", total.saturating_sub(free.max(all))),
    ];
    let (mut line, mut end) = (String::new(), 0);
    for (sign, _, bytes) in parts {
        let begin = end;
        end += bytes;
        let place = |bytes: u64| (u128::from(bytes.min(total)) * u128::from(BAR) / u128::from(total.max(1))) as usize;
        line.extend(std::iter::repeat_n(sign, place(end) - place(begin)));
    }
    let legend = parts.iter().filter(|(.., bytes)| *bytes > 0).map(|(sign, name, _)| format!("{sign} {name}"));
    format!("[{line}]\n {}", legend.collect::<Vec<_>>().join("   "))
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// A number with commas between its thousands.
pub fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let told = [0, 999, 1000, 40_960, 1_234_567].map(grouped);
        assert_eq!(told, ["0", "999", "1,000", "40,960", "1,234,567"]);
    }

    #[test]
    fn a_bar_is_as_long_as_the_memory_and_each_part_has_its_share() {
        let terms = |sizes: [u64; 3]| -> Vec<MemoryTerm> {
            let names = ["weights in memory", "KV cache", "margin"];
            std::iter::zip(names, sizes).map(|(name, bytes)| MemoryTerm { name, bytes }).collect()
        };
        let line = |sizes, free, total| bar(&terms(sizes), free, total).lines().next().unwrap().to_owned();
        let count = |line: &str, sign| line.chars().filter(|c| *c == sign).count();
        let drawn = line([20, 30, 10], 80, 120);
        assert_eq!("█▓▒░·".chars().map(|sign| count(&drawn, sign)).collect::<Vec<_>>(), [10, 15, 5, 10, 20]);
        // More than there is fills the bar and no more.
        assert_eq!(count(&line([500, 30, 10], 80, 120), '█'), BAR as usize);
    }
}
