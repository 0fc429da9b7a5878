//! Against a server in the shape of the hub, on loopback.
#![allow(clippy::unwrap_used)] // helpers of tests
mod headers;
mod inventory;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::{StreamExt, stream};
use hub::{DownloadProgress, HubConfig, HubError, ModelName, fetch};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the server has and does, and what it was asked.
#[derive(Default)]
struct Hub {
    files: BTreeMap<String, Vec<u8>>,
    /// The etag of every file; `None`: made of its name.
    etag: Option<String>,
    /// Listed, but not there.
    missing: Vec<String>,
    token: Option<String>,
    /// The list is answered with 503.
    down: Mutex<bool>,
    /// Answers of this file break off after so many bytes, so many times.
    breaks: Mutex<Option<(String, usize, usize)>>,
    /// `GET FILE RANGE` of every content request.
    asked: Mutex<Vec<String>>,
}

impl Hub {
    fn safetensors() -> Self {
        let index =
            r#"{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}"#;
        let shard = |seed: u8| (0..50_000u32).map(|i| (i % 251) as u8 ^ seed).collect();
        let files = [
            ("README.md", b"unwanted".to_vec()),
            ("config.json", b"{}".to_vec()),
            ("tokenizer.json", b"{\"t\": 1}".to_vec()),
            ("model.safetensors.index.json", index.into()),
            ("model-00001-of-00002.safetensors", shard(1)),
            ("model-00002-of-00002.safetensors", shard(2)),
        ];
        Hub { files: files.map(|(name, bytes)| (name.to_owned(), bytes)).into(), ..Hub::default() }
    }

    /// Serves until the test ends; the address.
    async fn serve(self) -> (String, Arc<Self>) {
        let hub = Arc::new(self);
        let app = Router::new()
            .route("/api/models/{org}/{name}/revision/{revision}", get(list))
            .route("/{org}/{name}/resolve/{commit}/{*file}", get(resolve))
            .route("/content/{*file}", get(content))
            .with_state(hub.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        (address, hub)
    }

    fn allowed(&self, headers: &HeaderMap) -> bool {
        let sent = headers.get("authorization").and_then(|v| v.to_str().ok());
        self.token.as_ref().is_none_or(|token| sent == Some(&format!("Bearer {token}")))
    }
}

async fn list(
    State(hub): State<Arc<Hub>>,
    Path((org, name, revision)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Response {
    if *hub.down.lock().unwrap() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    if !hub.allowed(&headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    if (org.as_str(), name.as_str()) != ("org", "model") || ![COMMIT, "main"].contains(&revision.as_str()) {
        return StatusCode::NOT_FOUND.into_response();
    }
    let names = hub.files.keys().chain(&hub.missing).map(|f| format!(r#"{{"rfilename": "{f}"}}"#));
    let body = format!(r#"{{"sha": "{COMMIT}", "siblings": [{}]}}"#, names.collect::<Vec<_>>().join(","));
    ([("content-type", "application/json")], body).into_response()
}

/// Large files lead on to the content network, as on the hub; small ones come at once.
async fn resolve(
    State(hub): State<Arc<Hub>>,
    Path((_, _, commit, file)): Path<(String, String, String, String)>,
    request: Request,
) -> Response {
    assert_eq!(commit, COMMIT);
    let Some(bytes) = hub.files.get(&file) else { return StatusCode::NOT_FOUND.into_response() };
    if !hub.allowed(request.headers()) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let of_name = || format!("etag-{}", file.replace(['/', '.'], "_"));
    let etag = format!("\"{}\"", hub.etag.clone().unwrap_or_else(of_name));
    if bytes.len() < 1000 {
        if *request.method() == Method::GET {
            hub.asked.lock().unwrap().push(format!("GET {file}"));
        }
        return ([("etag", etag)], bytes.clone()).into_response();
    }
    let host = request.headers()["host"].to_str().unwrap();
    let headers = [
        ("location", format!("http://{host}/content/{file}")),
        ("etag", "\"of the redirect\"".to_owned()),
        ("x-linked-etag", etag),
        ("x-linked-size", bytes.len().to_string()),
    ];
    (StatusCode::FOUND, headers).into_response()
}

async fn content(State(hub): State<Arc<Hub>>, Path(file): Path<String>, headers: HeaderMap) -> Response {
    let bytes = &hub.files[&file];
    let range = headers.get("range").and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
    hub.asked.lock().unwrap().push(format!("GET {file} {range}"));
    let (from, last) = range.strip_prefix("bytes=").and_then(|r| r.split_once('-')).unwrap_or(("0", ""));
    let from: usize = from.parse().unwrap();
    let end = last.parse::<usize>().map_or(bytes.len(), |last| (last + 1).min(bytes.len()));
    let rest = bytes[from..end].to_vec();
    let mut breaks = hub.breaks.lock().unwrap();
    let body = match breaks.as_mut().filter(|(name, _, times)| *name == file && *times > 0) {
        Some((_, after, times)) => {
            *times -= 1;
            let part = rest[..(*after).min(rest.len())].to_vec();
            // The part is sent before the connection ends.
            let broken = stream::iter([Some(part), None]).then(|part| async {
                if part.is_none() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                part.ok_or_else(|| std::io::Error::other("the connection breaks"))
            });
            Body::from_stream(broken)
        }
        None => Body::from(rest),
    };
    let range = format!("bytes {from}-{}/{}", end - 1, bytes.len());
    (StatusCode::PARTIAL_CONTENT, [("content-range", range)], body).into_response()
}

#[derive(Default)]
struct Seen(Mutex<Vec<String>>);

impl DownloadProgress for Seen {
    fn begin(&self, file: &str, total: u64, have: u64) {
        self.0.lock().unwrap().push(format!("{file} {total} {have}"));
    }

    fn at(&self, have: u64) {
        self.0.lock().unwrap().push(format!("{have}"));
    }

    fn end(&self) {}
}

struct Setup {
    config: HubConfig,
    home: tempfile::TempDir,
}

fn setup(endpoint: &str) -> Setup {
    let home = tempfile::tempdir().unwrap();
    let config =
        HubConfig { endpoint: endpoint.to_owned(), cache: home.path().join("hub"), token: None, offline: false };
    Setup { config, home }
}

async fn get_model(config: &HubConfig, name: &str) -> Result<std::path::PathBuf, HubError> {
    fetch(config, &ModelName::parse(name).unwrap(), "main", &Seen::default()).await
}

#[tokio::test]
async fn a_model_comes_whole_into_the_official_layout_and_is_not_fetched_twice() {
    let (endpoint, hub) = Hub::safetensors().serve().await;
    let setup = setup(&endpoint);
    let folder = get_model(&setup.config, "org/model").await.unwrap();
    let repo = setup.home.path().join("hub/models--org--model");
    assert_eq!(folder, repo.join("snapshots").join(COMMIT));
    assert_eq!(std::fs::read_to_string(repo.join("refs/main")).unwrap(), COMMIT);
    for (name, bytes) in &hub.files {
        let path = folder.join(name);
        assert_eq!(path.exists(), name != "README.md", "{name}");
        if path.exists() {
            assert_eq!(std::fs::read(&path).unwrap(), *bytes, "{name}");
            let blob = format!("../../blobs/etag-{}", name.replace('.', "_"));
            assert_eq!(std::fs::read_link(&path).unwrap().to_str().unwrap(), blob);
        }
    }
    let asked = hub.asked.lock().unwrap().len();
    assert_eq!(get_model(&setup.config, "org/model").await.unwrap(), folder);
    assert_eq!(hub.asked.lock().unwrap().len(), asked);
}

#[tokio::test]
async fn a_broken_connection_goes_on_where_it_broke() {
    const SHARD: &str = "model-00001-of-00002.safetensors";
    let hub = Hub { breaks: Mutex::new(Some((SHARD.into(), 20_000, 2))), ..Hub::safetensors() };
    let (endpoint, hub) = hub.serve().await;
    let setup = setup(&endpoint);
    let seen = Seen::default();
    let folder = fetch(&setup.config, &ModelName::parse("org/model").unwrap(), "main", &seen).await.unwrap();
    assert_eq!(std::fs::read(folder.join(SHARD)).unwrap(), hub.files[SHARD]);
    let asked: Vec<String> = hub.asked.lock().unwrap().iter().filter(|a| a.contains(SHARD)).cloned().collect();
    let want = ["bytes=0-", "bytes=20000-", "bytes=40000-"].map(|range| format!("GET {SHARD} {range}"));
    assert_eq!(asked, want);
    let seen = seen.0.into_inner().unwrap();
    assert!(seen.contains(&format!("{SHARD} 50000 0")) && seen.contains(&"50000".to_owned()), "{seen:?}");
}

#[tokio::test]
async fn a_download_that_was_given_up_goes_on_next_time() {
    const SHARD: &str = "model-00002-of-00002.safetensors";
    let hub = Hub { breaks: Mutex::new(Some((SHARD.into(), 1_000, 5))), ..Hub::safetensors() };
    let (endpoint, hub) = hub.serve().await;
    let setup = setup(&endpoint);
    let error = get_model(&setup.config, "org/model").await.unwrap_err().to_string();
    assert!(error.contains(SHARD) && error.contains("cannot be reached"), "{error}");
    // Half a model is no model.
    let offline = HubConfig { offline: true, ..setup.config.clone() };
    assert!(get_model(&offline, "org/model").await.is_err());
    let folder = get_model(&setup.config, "org/model").await.unwrap();
    assert_eq!(std::fs::read(folder.join(SHARD)).unwrap(), hub.files[SHARD]);
    assert!(hub.asked.lock().unwrap().contains(&format!("GET {SHARD} bytes=5000-")));
}

#[tokio::test]
async fn a_missing_file_and_an_unknown_model_are_named() {
    let hub = Hub { missing: vec!["tokenizer_config.json".into()], ..Hub::safetensors() };
    let (endpoint, _hub) = hub.serve().await;
    let setup = setup(&endpoint);
    let error = get_model(&setup.config, "org/model").await.unwrap_err().to_string();
    assert!(error.contains("org/model") && error.contains("tokenizer_config.json"), "{error}");
    let error = get_model(&setup.config, "org/other").await.unwrap_err().to_string();
    assert!(error.contains("org/other") && error.contains("main"), "{error}");
}

#[tokio::test]
async fn a_refusal_names_the_token_and_the_token_opens() {
    let hub = Hub { token: Some("secret".into()), ..Hub::safetensors() };
    let (endpoint, _hub) = hub.serve().await;
    let setup = setup(&endpoint);
    let error = get_model(&setup.config, "org/model").await.unwrap_err().to_string();
    assert!(error.contains("401") && error.contains("Set HF_TOKEN"), "{error}");
    let with = |token: &str| HubConfig { token: Some(token.into()), ..setup.config.clone() };
    let error = get_model(&with("wrong"), "org/model").await.unwrap_err().to_string();
    assert!(error.contains("The token in HF_TOKEN"), "{error}");
    assert!(get_model(&with("secret"), "org/model").await.unwrap().join("config.json").exists());
}

#[tokio::test]
async fn offline_the_cache_is_all_there_is() {
    let (endpoint, hub) = Hub::safetensors().serve().await;
    let setup = setup(&endpoint);
    let offline = HubConfig { offline: true, ..setup.config.clone() };
    let error = get_model(&offline, "org/model").await.unwrap_err().to_string();
    assert!(error.contains("does not have org/model whole") && error.contains("HF_HUB_OFFLINE"), "{error}");
    let folder = get_model(&setup.config, "org/model").await.unwrap();
    let asked = hub.asked.lock().unwrap().len();
    assert_eq!(get_model(&offline, "org/model").await.unwrap(), folder);
    assert_eq!(hub.asked.lock().unwrap().len(), asked);
    // Without a connection, too.
    let gone = HubConfig { endpoint: "http://127.0.0.1:1".into(), ..setup.config.clone() };
    assert_eq!(get_model(&gone, "org/model").await.unwrap(), folder);
    // And while the hub has a bad day.
    *hub.down.lock().unwrap() = true;
    assert_eq!(get_model(&setup.config, "org/model").await.unwrap(), folder);
    std::fs::remove_file(folder.join("model-00002-of-00002.safetensors")).unwrap();
    let error = get_model(&setup.config, "org/model").await.unwrap_err().to_string();
    assert!(error.contains("answers 503") && error.contains("model-00002-of-00002.safetensors"), "{error}");
    let error = get_model(&gone, "org/model").await.unwrap_err().to_string();
    assert!(error.contains("model-00002-of-00002.safetensors") && error.contains("127.0.0.1:1"), "{error}");
}

/// Nothing can be written to a cache whose folders are somebody else's; a test that may run as root makes sure that
/// nothing is tried.
#[tokio::test]
async fn a_cache_that_has_the_model_is_not_written_to() {
    let (endpoint, _hub) = Hub::safetensors().serve().await;
    let setup = setup(&endpoint);
    let folder = get_model(&setup.config, "org/model").await.unwrap();
    let reference = folder.join("../../refs/main");
    let epoch = std::time::SystemTime::UNIX_EPOCH;
    std::fs::File::options().write(true).open(&reference).unwrap().set_modified(epoch).unwrap();
    assert_eq!(get_model(&setup.config, "org/model").await.unwrap(), folder);
    assert_eq!(reference.metadata().unwrap().modified().unwrap(), epoch);
    // A reference that cannot be written costs the next start without the hub, not this one.
    std::fs::remove_file(&reference).unwrap();
    std::fs::create_dir(&reference).unwrap();
    assert_eq!(get_model(&setup.config, "org/model").await.unwrap(), folder);
}

#[tokio::test]
async fn a_cache_that_cannot_be_written_serves_what_it_has() {
    const OLDER: &str = "76543210abcdef0123456789abcdef0123456789";
    let (endpoint, _hub) = Hub::safetensors().serve().await;
    let setup = setup(&endpoint);
    let folder = get_model(&setup.config, "org/model").await.unwrap();
    // The cache has an older commit whole, and a file is in the way of all that is new.
    let repo = setup.home.path().join("hub/models--org--model");
    let older = repo.join("snapshots").join(OLDER);
    std::fs::create_dir(&older).unwrap();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), older.join(entry.file_name())).unwrap();
    }
    std::fs::remove_dir_all(&folder).unwrap();
    std::fs::remove_dir_all(repo.join("blobs")).unwrap();
    std::fs::write(repo.join("blobs"), "in the way").unwrap();
    std::fs::write(repo.join("refs/main"), OLDER).unwrap();
    assert_eq!(get_model(&setup.config, "org/model").await.unwrap(), older);
    std::fs::remove_file(older.join("config.json")).unwrap();
    let error = get_model(&setup.config, "org/model").await.unwrap_err().to_string();
    assert!(error.contains("models--org--model/blobs"), "{error}");
}

#[tokio::test]
async fn odd_caches_are_named() {
    let (endpoint, _hub) = Hub::safetensors().serve().await;
    let setup = setup(&endpoint);
    let folder = get_model(&setup.config, "org/model").await.unwrap();
    let offline = HubConfig { offline: true, ..setup.config.clone() };
    let error = async || get_model(&offline, "org/model").await.unwrap_err().to_string();
    let repo = setup.home.path().join("hub/models--org--model");
    // A link whose content is gone is no file, and online it is fetched again.
    let blob = folder.join("config.json").canonicalize().unwrap();
    std::fs::remove_file(&blob).unwrap();
    let told = error().await;
    assert!(told.contains("config.json is missing"), "{told}");
    get_model(&setup.config, "org/model").await.unwrap();
    assert!(blob.exists() && get_model(&offline, "org/model").await.is_ok());
    // Only the commit is there, as after a download by its name.
    std::fs::remove_file(repo.join("refs/main")).unwrap();
    let told = error().await;
    assert!(told.contains("revision main (there are commits") && told.contains(COMMIT), "{told}");
    std::fs::write(repo.join("refs/main"), "0".repeat(40)).unwrap();
    let told = error().await;
    assert!(told.contains(&"0".repeat(40)) && told.contains("main"), "{told}");
}

#[tokio::test]
async fn a_quantisation_fetches_its_shards_alone() {
    let bytes = |n: usize| vec![7u8; n];
    let files = [
        ("m-Q4_K_M.gguf", bytes(2000)),
        ("m-Q8_0-00001-of-00002.gguf", bytes(3000)),
        ("m-Q8_0-00002-of-00002.gguf", bytes(10)),
    ];
    let hub = Hub { files: files.map(|(name, bytes)| (name.to_owned(), bytes)).into(), ..Hub::default() };
    let (endpoint, _hub) = hub.serve().await;
    let setup = setup(&endpoint);
    let path = get_model(&setup.config, "org/model:Q8_0").await.unwrap();
    assert!(path.ends_with("m-Q8_0-00001-of-00002.gguf") && path.exists());
    assert!(path.with_file_name("m-Q8_0-00002-of-00002.gguf").exists());
    assert!(!path.with_file_name("m-Q4_K_M.gguf").exists());
    let error = get_model(&setup.config, "org/model").await.unwrap_err().to_string();
    assert!(error.contains("NAME:QUANT"), "{error}");
}

/// Whoever comes later waits for the first and uses what it has fetched.
#[tokio::test]
async fn all_that_fetch_a_model_at_once_have_it() {
    const SHARD: &str = "model-00001-of-00002.safetensors";
    for _ in 0..3 {
        let hub = Hub { breaks: Mutex::new(Some((SHARD.into(), 20_000, 1))), ..Hub::safetensors() };
        let (endpoint, hub) = hub.serve().await;
        let setup = setup(&endpoint);
        let fetch = || get_model(&setup.config, "org/model");
        for folder in <[_; 3]>::from(tokio::join!(fetch(), fetch(), fetch())) {
            assert_eq!(std::fs::read(folder.unwrap().join(SHARD)).unwrap(), hub.files[SHARD]);
        }
        let blobs = std::fs::read_dir(setup.home.path().join("hub/models--org--model/blobs")).unwrap();
        let names: Vec<_> = blobs.map(|b| b.unwrap().file_name().into_string().unwrap()).collect();
        assert!(names.iter().all(|name| !name.ends_with("incomplete")), "{names:?}");
    }
}
