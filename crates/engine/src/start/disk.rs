//! Opens the cache on disk. Whatever is wrong with the disk, the server serves without it and says why.
use super::config::EngineConfig;
use crate::error::StartError;
use crate::serve::ModelInfo;
use disk_cache::{CacheLabel, DiskCache, DiskContents, DiskError};
use kv::CacheIdentity;
use std::sync::Arc;

/// The cache on disk for blocks of this identity; `None` where there is to be none, or where it cannot be used.
///
/// Errors: a limit that leaves no room for one block.
pub(super) fn open(
    config: &EngineConfig,
    info: &ModelInfo,
    identity: CacheIdentity,
) -> Result<Option<Arc<DiskCache>>, StartError> {
    let Some(options) = &config.disk_cache else { return Ok(None) };
    let contents = DiskContents {
        identity,
        label: CacheLabel { model: info.name.clone(), formats: info.cache_dtype() },
        block_bytes: info.bytes_per_block,
    };
    match DiskCache::open(options, &contents) {
        Ok(disk) => Ok(Some(Arc::new(disk))),
        Err(error @ DiskError::LimitTooSmall { .. }) => Err(error.into()),
        Err(error @ DiskError::NoRoom { .. }) => {
            tracing::info!("no cache on disk: {error}");
            Ok(None)
        }
        Err(error) => {
            tracing::warn!("no cache on disk: {error}");
            Ok(None)
        }
    }
}
