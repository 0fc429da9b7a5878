//! What the cache holds: listed, deleted, verified.
use crate::{COMMIT, Hub, Seen, get_model, setup};
use hub::{HubConfig, HubError, ModelName, fetch, list, remove, verify};

fn names(config: &HubConfig) -> Vec<String> {
    list(config).unwrap().iter().map(|model| model.name.to_string()).collect()
}

/// Two quantisations that share a file, and one of another repository.
async fn quants() -> (HubConfig, tempfile::TempDir) {
    let files = [("m-Q4_K_M.gguf", 2000), ("m-Q8_0-00001-of-00002.gguf", 3000), ("m-Q8_0-00002-of-00002.gguf", 1500)];
    let files = files.map(|(name, len)| (name.to_owned(), vec![7u8; len])).into();
    let (endpoint, _hub) = Hub { files, ..Hub::default() }.serve().await;
    let setup = setup(&endpoint);
    for quant in ["Q4_K_M", "Q8_0"] {
        get_model(&setup.config, &format!("org/model:{quant}")).await.unwrap();
    }
    (setup.config, setup.home)
}

#[tokio::test]
async fn what_the_cache_holds_is_listed_with_its_size() {
    let (config, _home) = quants().await;
    assert_eq!(names(&config), ["org/model:Q4_K_M", "org/model:Q8_0"]);
    let sizes: Vec<u64> = list(&config).unwrap().iter().map(|model| model.bytes).collect();
    assert_eq!(sizes, [2000, 4500]);
    let shard = config.cache.join(format!("models--org--model/snapshots/{COMMIT}/m-Q8_0-00002-of-00002.gguf"));
    std::fs::remove_file(shard).unwrap();
    let missing: Vec<Option<String>> = list(&config).unwrap().into_iter().map(|model| model.missing).collect();
    assert_eq!(missing, [None, Some("m-Q8_0-00002-of-00002.gguf".into())]);
    // A folder with weights in shards, and the part of a file that has come of another model.
    let (endpoint, _hub) = Hub::safetensors().serve().await;
    let setup = setup(&endpoint);
    get_model(&setup.config, "org/model").await.unwrap();
    let part = setup.config.cache.join("models--org--part/blobs");
    std::fs::create_dir_all(&part).unwrap();
    std::fs::write(part.join("etag.incomplete"), [0; 70]).unwrap();
    let listed = list(&setup.config).unwrap();
    assert_eq!(names(&setup.config), ["org/model", "org/part"]);
    assert!(listed[0].bytes > 100_000 && listed[0].missing.is_none() && listed[0].commit == COMMIT);
    assert!(listed[1].bytes == 70 && listed[1].missing.is_some());
}

#[tokio::test]
async fn a_deleted_model_frees_what_no_other_needs() {
    let (config, _home) = quants().await;
    let name = |text: &str| ModelName::parse(text).unwrap();
    let error = remove(&config, &name("org/model:Q5_K_M")).unwrap_err();
    assert!(matches!(error, HubError::Absent { .. }), "{error}");
    assert_eq!(remove(&config, &name("org/model:q8_0")).unwrap(), 4500);
    assert_eq!(names(&config), ["org/model:Q4_K_M"]);
    let offline = HubConfig { offline: true, ..config.clone() };
    assert!(get_model(&offline, "org/model:Q4_K_M").await.is_ok());
    assert_eq!(remove(&config, &name("org/model")).unwrap(), 2000);
    assert!(names(&config).is_empty() && !config.cache.join("models--org--model").exists());
}

/// A content whose etag is its SHA-256, as the hub has it for weights.
#[tokio::test]
async fn weights_that_are_not_what_their_hash_says_are_found() {
    const SHA256: &str = "d28fe05a27ee94493d97354e92bd74f1ce84648ad0bfb8f744b038c40db4f5b6";
    let files = [("m-Q4_0.gguf".to_owned(), vec![7u8; 2000])].into();
    let hub = Hub { files, etag: Some(SHA256.into()), ..Hub::default() };
    let (endpoint, _hub) = hub.serve().await;
    let setup = setup(&endpoint);
    let path = get_model(&setup.config, "org/model").await.unwrap();
    assert_eq!(verify(&path).unwrap(), 2000);
    std::fs::write(path.canonicalize().unwrap(), [8u8; 2000]).unwrap();
    assert!(matches!(verify(&path), Err(HubError::Damaged { .. })));
    assert_eq!(get_model(&setup.config, "org/model").await.unwrap(), path);
    assert_eq!(verify(&path).unwrap(), 2000);
    // What is damaged on the way is never a part of a model.
    let files = [("m-Q4_0.gguf".to_owned(), vec![6u8; 2000])].into();
    let (endpoint, _hub) = Hub { files, etag: Some(SHA256.into()), ..Hub::default() }.serve().await;
    let setup = crate::setup(&endpoint);
    let name = ModelName::parse("org/model").unwrap();
    let error = fetch(&setup.config, &name, "main", &Seen::default()).await.unwrap_err();
    assert!(matches!(error, HubError::Damaged { .. }), "{error}");
    assert!(names(&setup.config).is_empty());
}
