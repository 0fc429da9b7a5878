//! `tallow list` and `tallow rm`: the models of this machine's cache, and those with a short name.
use crate::args::{ListArgs, RmArgs};
use crate::cache::age;
use crate::model::hub_name;
use crate::{catalog, output};
use anyhow::{Result, bail};
use bytesize::ByteSize;
use hub::{CachedModel, HubConfig};
use serde_json::json;
use std::time::SystemTime;

/// Prints the models of the cache, or those with a short name.
///
/// Errors: a cache that cannot be read.
pub fn list(args: &ListArgs) -> Result<()> {
    if args.known {
        catalog::print();
        return Ok(());
    }
    let config = HubConfig::from_env()?;
    let models = hub::list(&config)?;
    if args.json {
        let row = |model: &CachedModel| {
            let CachedModel { name, commit, bytes, missing, .. } = model;
            json!({"model": name.to_string(), "commit": commit, "bytes": bytes, "missing": missing})
        };
        output::line(format_args!("{:#}", models.iter().map(row).collect::<serde_json::Value>()));
        return Ok(());
    }
    if models.is_empty() {
        output::line(format_args!("{} holds no models; `tallow list --known` names some", config.cache.display()));
        return Ok(());
    }
    output::line(format_args!("{:>10}  {:>8}  {:<8}  model", "size", "fetched", "commit"));
    for model in &models {
        let fetched = age(SystemTime::now().duration_since(model.fetched).unwrap_or_default());
        let missing = model.missing.as_ref().map(|file| format!("  ({file} is missing: `tallow pull` goes on)"));
        let (size, commit) = (ByteSize::b(model.bytes).to_string(), model.commit.get(..8).unwrap_or("-"));
        output::line(format_args!(
            "{size:>10}  {fetched:>8}  {commit:<8}  {}{}",
            model.name,
            missing.unwrap_or_default()
        ));
    }
    Ok(())
}

/// Deletes models from the cache.
///
/// Errors: a model that is not there, with the one that is named most like it; files that cannot be deleted.
pub fn rm(args: &RmArgs) -> Result<()> {
    let config = HubConfig::from_env()?;
    for text in &args.models {
        let name = hub_name(text)?;
        match hub::remove(&config, &name) {
            Ok(bytes) => output::line(format_args!("{name} is deleted, {} are free again", ByteSize::b(bytes))),
            Err(error) => {
                let there: Vec<String> = hub::list(&config)?.iter().map(|model| model.name.to_string()).collect();
                match crate::nearest(&name.to_string(), there.iter().map(String::as_str)) {
                    Some(near) => bail!("{error}; did you mean {near}?"),
                    None => return Err(error.into()),
                }
            }
        }
    }
    Ok(())
}
