//! `tallow plan`: what serving a model would take of memory, by the headers of its files.
use crate::args::ServeArgs;
use crate::model;
use crate::output;
use crate::settings::Settings;
use anyhow::Result;
use engine::StartPlan;

/// Prints how `tallow serve` with the same flags would store K and V, and what it would take of memory.
///
/// Errors: what `tallow serve` would refuse before it reads weights.
pub async fn plan(args: ServeArgs) -> Result<()> {
    let settings = Settings::of_serving(&args)?;
    let config = model::engine_config(&settings).await?;
    let plan = engine::plan(&config).map_err(|error| settings.explain(error))?;
    output::print(format_args!("{}", table(&plan)));
    Ok(())
}

fn table(plan: &StartPlan) -> String {
    let (pair, layout, budget) = (&plan.kv.pair, &plan.kv.layout, &plan.kv.budget);
    let (block_size, block_bytes) = (layout.block_size(), layout.bytes_per_block());
    let mut lines = vec![
        format!("model type   {}", plan.model_type),
        format!("K, V         {}, {}: {:.1} bytes a token", pair.k.name(), pair.v.name(), layout.bytes_per_token()),
        format!("blocks       {} of {block_size} tokens, {block_bytes} bytes each", budget.num_blocks),
        format!("context      {} tokens", budget.max_model_len),
        format!("snapshots    {}", budget.num_snapshots),
        String::new(),
    ];
    if let Some(reason) = &plan.kv.reason {
        lines.insert(1, format!("preset       {reason}"));
    }
    let mut row =
        |name: &str, bytes: u64| lines.push(format!("{name:<36}{:>12.1} MiB", bytes as f64 / f64::from(1 << 20)));
    plan.terms.iter().for_each(|term| row(term.name, term.bytes));
    row("in all", plan.terms.iter().map(|term| term.bytes).sum());
    plan.free_memory.into_iter().for_each(|bytes| row("free now", bytes));
    plan.total_memory.into_iter().for_each(|bytes| row("this machine, or the container", bytes));
    lines.join("\n") + "\n"
}
