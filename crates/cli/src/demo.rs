//! The bundled demo model.
use anyhow::{Result, bail};
use std::path::PathBuf;

/// Finds the bundled model beside the program (`../share/tallow/models/demo`), or in the checkout that it was built
/// from.
///
/// Errors: it is in neither place.
pub fn folder() -> Result<PathBuf> {
    let beside =
        std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.parent()?.join("share/tallow/models/demo")));
    let built_from = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/demo"));
    let places: Vec<PathBuf> = beside.into_iter().chain([built_from]).collect();
    match places.iter().find(|p| p.join("config.json").exists()) {
        Some(place) => Ok(place.canonicalize()?),
        None => bail!("no model was named, and the bundled demo model is in none of {places:?}"),
    }
}

/// What `serve` logs when nobody has named a model.
pub const NOTICE: &str = "No model was named, so this is the bundled demo model: 17 million parameters, trained for \
                          small talk and tests. It knows little; `tallow list --known` names models that know more";
