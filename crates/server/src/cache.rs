//! `/v1/cache`: what is in the cache of prompts, and what the last requests found in it.
use crate::http::error::{ApiError, ErrorCode};
use crate::http::operation::Operation;
use crate::http::paths::Routes;
use crate::http::state::{ServedModel, ServerState};
use axum::Json;
use axum::extract::{ConnectInfo, Request, State};
use axum::routing::get;
use engine::{DiskStats, DiskWriteState, PrefixEvent};
use schemars::JsonSchema;
use serde::Serialize;
use std::net::{IpAddr, SocketAddr};

/// Where the cache is told of and cleared.
pub const PATH: &str = "/v1/cache";

/// The route.
pub fn routes() -> Routes {
    Routes::new()
        .route(PATH, get(show).delete(clear))
        .described(Operation::get("Tells what is in the cache, and what requests found in it").answers::<CacheStatus>())
        .described(Operation::delete("Forgets what is cached and not in use").answers::<ClearedCache>())
}

/// What is in the cache, and what requests found in it.
#[derive(Debug, Serialize, JsonSchema)]
struct CacheStatus {
    /// Whether prompts are looked for in the cache (`--no-prefix-cache` turns it off).
    enabled: bool,
    blocks: CacheBlocks,
    /// Copies of recurrent states, for models that have such.
    snapshots: KeptSnapshots,
    /// What all requests found since the start.
    totals: FoundTokens,
    /// What is kept on disk; null where nothing is.
    disk: Option<DiskCacheStatus>,
    /// The last hundred requests whose prompts have been computed, the newest first.
    requests: Vec<FoundPrompt>,
}

/// The memory of the cache, in blocks.
#[derive(Debug, Serialize, JsonSchema)]
struct CacheBlocks {
    /// All blocks.
    total: usize,
    /// Those that running requests hold.
    held: usize,
    /// Those that nobody holds and that are kept for later requests.
    cached: usize,
    /// Those that hold nothing.
    free: usize,
    /// Bytes of a block over all layers.
    bytes_per_block: usize,
    /// Tokens of a block.
    tokens_per_block: usize,
}

/// How many snapshots are kept, and how many can be.
#[derive(Debug, Serialize, JsonSchema)]
struct KeptSnapshots {
    kept: usize,
    capacity: usize,
}

/// What is kept on disk of this model and these formats.
#[derive(Debug, Serialize, JsonSchema)]
struct DiskCacheStatus {
    /// Blocks and snapshots.
    values: u64,
    /// Their bytes.
    bytes: u64,
    /// The size of the file.
    file_bytes: u64,
    /// The largest size of the files of all models and formats together.
    limit: u64,
    /// Bytes that wait to be written.
    staged_bytes: u64,
    /// Bytes that were written today (UTC).
    written_today: u64,
    /// Bytes that may be written in a day.
    writes_per_day: u64,
    /// Values that were asked for and not there, or damaged.
    misses: u64,
    /// Values that were damaged and are deleted.
    damaged: u64,
    /// How fast values are read, as measured lately.
    read_bytes_per_second: Option<f64>,
    /// `on`, `paused`, or why nothing can be written.
    state: String,
}

/// Tokens of prompts.
#[derive(Debug, Serialize, JsonSchema)]
struct FoundTokens {
    /// Those that were looked for.
    queried: u64,
    /// Those that were in memory.
    memory: u64,
    /// Those that came from disk.
    disk: u64,
}

/// What a request found of its prompt, in tokens.
#[derive(Debug, Serialize, JsonSchema)]
struct FoundPrompt {
    /// The request's id, as in `x-request-id` and in the log.
    id: String,
    /// Tokens of the prompt.
    prompt: usize,
    /// Those that were in memory.
    memory: usize,
    /// Those that came from disk.
    disk: usize,
    /// Those that were computed.
    computed: usize,
    /// Why they were; null where they are new after all that was known.
    miss: Option<String>,
}

/// The answer to a request that clears the cache.
#[derive(Debug, Serialize, JsonSchema)]
struct ClearedCache {
    cleared: bool,
}

impl CacheStatus {
    fn of(served: &ServedModel) -> Self {
        let (info, stats, found) = (served.engine.info(), served.engine.stats(), served.engine.prefixes());
        CacheStatus {
            enabled: info.prefix_cache,
            blocks: CacheBlocks {
                total: info.num_blocks,
                held: stats.blocks_held,
                cached: stats.blocks_cached,
                free: stats.blocks_free,
                bytes_per_block: info.bytes_per_block,
                tokens_per_block: info.block_size,
            },
            snapshots: KeptSnapshots { kept: stats.snapshots, capacity: info.num_snapshots },
            totals: FoundTokens { queried: found.queried, memory: found.from_memory, disk: found.from_archive },
            disk: served.engine.disk().map(DiskCacheStatus::from),
            requests: found.last.into_iter().rev().map(FoundPrompt::from).collect(),
        }
    }
}

impl From<DiskStats> for DiskCacheStatus {
    fn from(stats: DiskStats) -> Self {
        DiskCacheStatus {
            values: stats.values,
            bytes: stats.bytes,
            file_bytes: stats.file_bytes,
            limit: stats.limit,
            staged_bytes: stats.staged_bytes,
            written_today: stats.written_today,
            writes_per_day: stats.writes_per_day,
            misses: stats.values_missing,
            damaged: stats.damaged,
            read_bytes_per_second: stats.read_bytes_per_second,
            state: match stats.write_state {
                DiskWriteState::On => "on".to_owned(),
                DiskWriteState::Paused => "paused".to_owned(),
                DiskWriteState::Failed(reason) => reason,
            },
        }
    }
}

impl From<PrefixEvent> for FoundPrompt {
    fn from(PrefixEvent { id, report }: PrefixEvent) -> Self {
        FoundPrompt {
            id,
            prompt: report.prompt,
            memory: report.from_memory,
            disk: report.from_archive,
            computed: report.computed(),
            miss: report.miss.map(|miss| miss.to_string()),
        }
    }
}

async fn show(State(state): State<ServerState>) -> Result<Json<CacheStatus>, ApiError> {
    Ok(Json(CacheStatus::of(state.served()?)))
}

async fn clear(State(state): State<ServerState>, request: Request) -> Result<Json<ClearedCache>, ApiError> {
    check_may_clear(&state, &request)?;
    state.served()?.engine.clear_cache();
    Ok(Json(ClearedCache { cleared: true }))
}

/// Whether the client of a request may clear the cache.
///
/// Errors: no key protects the server, and the client is not on its machine.
pub fn check_may_clear(state: &ServerState, request: &Request) -> Result<(), ApiError> {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip());
    check_peer_may_clear(state.config().api_key.is_some(), peer)
}

/// Whether the client at `peer` may clear the cache. Where the server has a key, the client has shown it.
///
/// Errors: those of [`check_may_clear`].
fn check_peer_may_clear(has_key: bool, peer: Option<IpAddr>) -> Result<(), ApiError> {
    if has_key || peer.is_some_and(|peer| peer.to_canonical().is_loopback()) {
        return Ok(());
    }
    let peer = peer.map_or_else(|| "a client without an address".into(), |peer| peer.to_string());
    let message = format!(
        "{peer} may not clear the cache: without --api-key only clients on the server's own machine may, by a loopback \
         address"
    );
    Err(ApiError::new(ErrorCode::NotAllowed, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_key_the_cache_is_cleared_from_this_machine_alone() {
        for (peer, here) in [
            ("127.0.0.1", true),
            ("127.8.8.8", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("192.168.1.5", false),
            ("::ffff:10.0.0.1", false),
            ("fe80::1", false),
        ] {
            let address = peer.parse().ok();
            assert!(address.is_some() && check_peer_may_clear(true, address).is_ok(), "{peer}");
            let checked = check_peer_may_clear(false, address);
            assert_eq!(checked.is_ok(), here, "{peer}");
            if let Err(error) = checked {
                assert_eq!(error.status(), 403);
                assert!(error.message().starts_with(peer) && error.message().contains("--api-key"), "{error}");
            }
        }
        assert!(check_peer_may_clear(false, None).is_err());
    }
}
