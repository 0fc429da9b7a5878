//! Headers without weights.
use crate::{Hub, get_model, setup};
use hub::{HubConfig, HubError, ModelName, fetch_headers};
use std::path::{Path, PathBuf};

/// A file of safetensors of `len` bytes whose header takes `header` of them.
fn safetensors_file(header: usize, len: usize) -> Vec<u8> {
    let mut bytes = (header as u64).to_le_bytes().to_vec();
    bytes.extend(std::iter::repeat_n(b' ', header));
    bytes.resize(len, 7);
    bytes
}

async fn headers(config: &HubConfig, name: &str, to: &Path) -> Result<PathBuf, HubError> {
    fetch_headers(config, &ModelName::parse(name).unwrap(), "main", to).await
}

#[tokio::test]
async fn headers_come_alone_and_files_have_their_full_length() {
    const SHARD: &str = "model-00002-of-00002.safetensors";
    let mut hub = Hub::safetensors();
    hub.files.insert("model-00001-of-00002.safetensors".into(), safetensors_file(1000, 2_000_000));
    hub.files.insert(SHARD.into(), safetensors_file(900_000, 3_000_000));
    let (endpoint, hub) = hub.serve().await;
    let (setup, folder) = (setup(&endpoint), tempfile::tempdir().unwrap());
    let path = headers(&setup.config, "org/model", folder.path()).await.unwrap();
    assert!(path == folder.path() && !setup.config.cache.exists() && !path.join("tokenizer.json").exists());
    let shard = std::fs::read(path.join(SHARD)).unwrap();
    assert!(shard.len() == 3_000_000 && shard[..900_008] == hub.files[SHARD][..900_008]);
    assert!(shard[900_008..].iter().all(|byte| *byte == 0), "weights were fetched");
    let ranges: Vec<String> = hub.asked.lock().unwrap().iter().filter(|asked| asked.contains(SHARD)).cloned().collect();
    assert_eq!(ranges, ["bytes=0-262143", "bytes=262144-900007"].map(|range| format!("GET {SHARD} {range}")));
    // A model that is here whole is planned for as it lies here.
    let cached = get_model(&setup.config, "org/model").await.unwrap();
    assert_eq!(headers(&setup.config, "org/model", folder.path()).await.unwrap(), cached);
}

#[tokio::test]
async fn a_header_of_gguf_is_read_to_its_end_and_no_further() {
    // One key with a text of 600,000 bytes, no tensor.
    let mut bytes = [&b"GGUF"[..], &3u32.to_le_bytes(), &0u64.to_le_bytes(), &1u64.to_le_bytes()].concat();
    bytes.extend([&1u64.to_le_bytes()[..], b"k", &8u32.to_le_bytes(), &600_000u64.to_le_bytes()].concat());
    bytes.resize(bytes.len() + 600_000, b'x');
    bytes.resize(5_000_000, 7);
    let files = [("m.gguf".to_owned(), bytes.clone()), ("odd.gguf".to_owned(), vec![7; 5000])].into();
    let (endpoint, _hub) = Hub { files, ..Hub::default() }.serve().await;
    let (setup, folder) = (setup(&endpoint), tempfile::tempdir().unwrap());
    let path = headers(&setup.config, "org/model:m", folder.path()).await.unwrap();
    let got = std::fs::read(&path).unwrap();
    assert!(got.len() == bytes.len() && got[..600_049] == bytes[..600_049] && got[1 << 20..].iter().all(|b| *b == 0));
    let error = headers(&setup.config, "org/model:odd", folder.path()).await.unwrap_err().to_string();
    assert!(error.contains("odd.gguf") && error.contains("is not a GGUF file"), "{error}");
    let offline = HubConfig { offline: true, ..setup.config.clone() };
    assert!(headers(&offline, "org/model:m", folder.path()).await.unwrap_err().to_string().contains("HF_HUB_OFFLINE"));
}
