//! The bundled demo model.
use anyhow::{Result, bail};
use std::path::PathBuf;

/// Where the model lies, seen from the folder of the program: in an archive, and in an installation below one prefix.
const BESIDE: [&str; 2] = ["demo", "../share/tallow/demo"];

/// Finds the bundled model beside the program, or in the checkout that it was built from.
///
/// Errors: it is in none of these places.
pub fn folder() -> Result<PathBuf> {
    let program = std::env::current_exe().and_then(|program| program.canonicalize()).unwrap_or_default();
    let beside = program.parent().into_iter().flat_map(|folder| BESIDE.map(|place| folder.join(place)));
    let built_from = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/demo"));
    let places: Vec<PathBuf> = beside.chain([built_from]).collect();
    match places.iter().find(|p| p.join("config.json").exists()) {
        Some(place) => Ok(place.canonicalize()?),
        None => bail!("no model was named, and the bundled demo model is in none of {places:?}"),
    }
}

/// What `serve` and `chat` tell when nobody has named a model.
pub const NOTICE: &str = "No model was named, so this is the bundled demo model: 17 million parameters, trained for \
                          small talk and tests. It knows little; `tallow list --known` names models that know more";
