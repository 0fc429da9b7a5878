//! Models of a hub, which a server on loopback stands for: planned by their headers, fetched, listed, deleted.
use crate::common::{Ended, repo, run, says, tallow};
use axum::Router;
use axum::extract::{Path as UrlPath, Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A hub that has a folder's files as `org/model`, and counts the bytes that it sends.
#[derive(Clone)]
struct Hub {
    folder: PathBuf,
    sent: Arc<Mutex<usize>>,
}

impl Hub {
    /// Serves until the test ends; the address.
    fn serve(folder: &Path) -> (String, Self) {
        let hub = Hub { folder: folder.to_owned(), sent: Arc::default() };
        let app = Router::new()
            .route("/api/models/org/model/revision/main", get(list))
            .route("/org/model/resolve/{commit}/{*file}", get(file))
            .with_state(hub.clone());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                axum::serve(tokio::net::TcpListener::from_std(listener).unwrap(), app).await.unwrap();
            });
        });
        (address, hub)
    }
}

async fn list(State(hub): State<Hub>) -> Response {
    let files = std::fs::read_dir(&hub.folder).unwrap();
    let names = files.map(|file| format!(r#"{{"rfilename": {:?}}}"#, file.unwrap().file_name()));
    format!(r#"{{"sha": "{COMMIT}", "siblings": [{}]}}"#, names.collect::<Vec<_>>().join(",")).into_response()
}

async fn file(State(hub): State<Hub>, UrlPath((_, name)): UrlPath<(String, String)>, request: Request) -> Response {
    let bytes = std::fs::read(hub.folder.join(&name)).unwrap();
    let range = request.headers().get("range").and_then(|range| range.to_str().ok()?.strip_prefix("bytes="));
    let etag = ("etag", format!("\"etag-{}\"", name.replace('.', "_")));
    if *request.method() == Method::HEAD {
        return ([etag, ("x-linked-size", bytes.len().to_string())], "").into_response();
    }
    let (from, last) = range.and_then(|range| range.split_once('-')).unwrap_or(("0", ""));
    let from: usize = from.parse().unwrap();
    let end = last.parse::<usize>().map_or(bytes.len(), |last| last + 1);
    *hub.sent.lock().unwrap() += end - from;
    let range = ("content-range", format!("bytes {from}-{}/{}", end - 1, bytes.len()));
    (StatusCode::PARTIAL_CONTENT, [etag, range], bytes[from..end].to_vec()).into_response()
}

fn ended(home: &TempDir, endpoint: &str, arguments: &[&str]) -> Ended {
    run(tallow(home.path()).env("HF_ENDPOINT", endpoint).args(arguments))
}

/// What `tallow plan` tells of a model, but for its name.
fn plan(home: &TempDir, endpoint: &str, model: &str) -> Value {
    let ended = ended(home, endpoint, &["plan", model, "--memory", "1GiB", "--kv-disk-cache", "off", "--json"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let mut plan: Value = serde_json::from_str(&ended.stdout).unwrap();
    plan.as_object_mut().unwrap().remove("model");
    plan
}

#[test]
fn a_plan_by_headers_alone_is_that_of_the_whole_model() {
    let folder = repo("models/demo");
    let (endpoint, hub) = Hub::serve(&folder);
    let home = TempDir::new().unwrap();
    let by_headers = plan(&home, &endpoint, "org/model");
    assert_eq!(by_headers, plan(&home, &endpoint, folder.to_str().unwrap()));
    assert!(by_headers["start"]["num_blocks"].as_u64() > Some(0));
    // A hundredth of the weights at most, and nothing is kept.
    assert!(*hub.sent.lock().unwrap() < 340_000, "{} bytes were sent", hub.sent.lock().unwrap());
    assert_eq!(ended(&home, &endpoint, &["list", "--json"]).stdout.trim(), "[]");
    // A folder of MLX's, whose weights are made of several tensors each.
    let folder = repo("models/mlx-qwen3");
    let (endpoint, _) = Hub::serve(&folder);
    assert_eq!(plan(&home, &endpoint, "org/model"), plan(&home, &endpoint, folder.to_str().unwrap()));
}

#[test]
fn a_model_is_fetched_listed_and_deleted() {
    let (endpoint, hub) = Hub::serve(&repo("models/tiny-mistral"));
    let home = TempDir::new().unwrap();
    let ended = |arguments: &[&str]| ended(&home, &endpoint, arguments);
    let pulled = ended(&["pull", "org/model", "--verify"]);
    assert!(pulled.code == Some(0) && pulled.stdout.contains(COMMIT), "{}", pulled.stderr);
    let sent = *hub.sent.lock().unwrap();
    assert_eq!(ended(&["pull", "https://huggingface.co/org/model"]).stdout, pulled.stdout);
    assert_eq!(*hub.sent.lock().unwrap(), sent);
    says(&ended(&["list"]).stdout, &["org/model", &COMMIT[..8]]);
    let wrong = ended(&["rm", "org/modle"]);
    assert_eq!(wrong.code, Some(1));
    says(&wrong.stderr, &["does not have org/modle", "did you mean org/model?"]);
    says(&ended(&["rm", "org/model"]).stdout, &["org/model is deleted"]);
    says(&ended(&["list"]).stdout, &["holds no models"]);
}
