//! The hub over HTTP.
use crate::cache::{Cache, is_below, is_commit};
use crate::{HubConfig, HubError, ModelName, Progress};
use futures_util::StreamExt;
use reqwest::header::{CONTENT_RANGE, ETAG, HeaderMap, LOCATION, RANGE};
use reqwest::redirect::Policy;
use reqwest::{Response, StatusCode};
use serde::Deserialize;
use std::path::Path;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// Tries of a download that breaks off; each goes on where the last one ended.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(200);
/// Without a byte for so long, a connection counts as broken.
const SILENCE: Duration = Duration::from_secs(60);
const CONNECT: Duration = Duration::from_secs(10);

pub(crate) struct Client {
    http: reqwest::Client,
    /// For the headers that a file's address itself answers with, before it leads to a content network.
    direct: reqwest::Client,
    endpoint: String,
    token: Option<String>,
    model: ModelName,
}

/// A commit and its files.
pub(crate) struct Listing {
    pub commit: String,
    pub files: Vec<String>,
}

/// What a file's address says of it.
struct Head {
    etag: String,
    size: u64,
}

/// The builder of an HTTP client, TLS set up. All clients of a program that this crate is part of begin here: `reqwest` panics without.
pub fn http() -> reqwest::ClientBuilder {
    // An error means that it has been done.
    #[cfg(not(target_os = "macos"))]
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
}

impl Client {
    pub fn new(config: &HubConfig, model: &ModelName) -> Result<Self, HubError> {
        let build = |redirect| {
            let agent = concat!("tallow/", env!("CARGO_PKG_VERSION"));
            let builder = http().user_agent(agent).redirect(redirect);
            builder
                .connect_timeout(CONNECT)
                .read_timeout(SILENCE)
                .build()
                .map_err(|e| HubError::Connection { url: config.endpoint.clone(), message: describe(&e) })
        };
        Ok(Client {
            http: build(Policy::limited(10))?,
            direct: build(Policy::none())?,
            endpoint: config.endpoint.trim_end_matches('/').to_owned(),
            token: config.token.clone(),
            model: model.clone(),
        })
    }

    fn authorized(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Errors: a model or revision that is not there or not allowed, no connection.
    pub async fn list(&self, revision: &str) -> Result<Listing, HubError> {
        #[derive(Deserialize)]
        struct Info {
            sha: String,
            siblings: Vec<Sibling>,
        }
        #[derive(Deserialize)]
        struct Sibling {
            rfilename: String,
        }
        let url = format!("{}/api/models/{}/revision/{}", self.endpoint, self.model.repo, escape(revision));
        let response = self.authorized(self.http.get(&url)).send().await.map_err(|e| connection(&url, &e))?;
        if response.status() == StatusCode::NOT_FOUND {
            return Err(HubError::NotFound { model: self.model.repo.clone(), revision: revision.to_owned() });
        }
        self.check(&url, response.status())?;
        let answer = |message: String| HubError::Answer { url: url.clone(), message };
        let info: Info = response.json().await.map_err(|e| answer(describe(&e)))?;
        if !is_commit(&info.sha) {
            return Err(answer(format!("{} is no commit", info.sha)));
        }
        // A name must not lead out of the snapshot's folder.
        let files = info.siblings.into_iter().map(|s| s.rfilename).filter(|file| is_below(file)).collect();
        Ok(Listing { commit: info.sha, files })
    }

    fn check(&self, url: &str, status: StatusCode) -> Result<(), HubError> {
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(HubError::Refused {
                model: self.model.repo.clone(),
                status: status.as_u16(),
                with_token: self.token.is_some(),
            }),
            status if status.is_client_error() || status.is_server_error() => {
                Err(HubError::Status { url: url.to_owned(), status: status.as_u16() })
            }
            _ => Ok(()),
        }
    }

    /// Puts `file` into the snapshot, from the cache or from the hub.
    pub async fn fetch(
        &self,
        cache: &Cache,
        commit: &str,
        file: &str,
        progress: &dyn Progress,
    ) -> Result<(), HubError> {
        if cache.snapshot(commit).join(file).exists() {
            return Ok(());
        }
        let url = format!("{}/{}/resolve/{commit}/{}", self.endpoint, self.model.repo, escape(file));
        let head = self.head(&url, file).await?;
        let blob = cache.blob(&head.etag)?;
        if !blob.exists() {
            self.download(&url, file, &head, &blob, progress).await?;
        }
        cache.link(commit, file, &blob)
    }

    /// The file's etag and size: its address names those of the content, whatever network the content comes from.
    async fn head(&self, url: &str, file: &str) -> Result<Head, HubError> {
        let mut at = url.to_owned();
        for _ in 0..5 {
            let response = self.authorized(self.direct.head(&at)).send().await.map_err(|e| connection(&at, &e))?;
            if response.status() == StatusCode::NOT_FOUND {
                return Err(HubError::MissingFile { model: self.model.repo.clone(), file: file.to_owned() });
            }
            self.check(&at, response.status())?;
            let headers = response.headers();
            // A repository that was renamed leads on within the hub.
            if let Some(to) = text(headers, LOCATION.as_str()).filter(|to| to.starts_with('/')) {
                at = format!("{}{to}", self.endpoint);
                continue;
            }
            let answer = |message: &str| HubError::Answer { url: at.clone(), message: message.into() };
            let etag = text(headers, "x-linked-etag").or_else(|| text(headers, ETAG.as_str()));
            let etag = etag.ok_or_else(|| answer("no ETag"))?;
            let size = text(headers, "x-linked-size").or_else(|| text(headers, "content-length"));
            let size = size.and_then(|s| s.parse().ok()).ok_or_else(|| answer("no size"))?;
            return Ok(Head { etag: etag.trim_start_matches("W/").trim_matches('"').to_owned(), size });
        }
        Err(HubError::Answer { url: url.to_owned(), message: "it leads on without end".into() })
    }

    /// Fills a part of `blob` up to the file's size, going on where an earlier try or process has stopped, and gives it its name.
    async fn download(
        &self,
        url: &str,
        file: &str,
        head: &Head,
        blob: &Path,
        progress: &dyn Progress,
    ) -> Result<(), HubError> {
        let part = &blob.with_extension("incomplete");
        let open = std::fs::OpenOptions::new().create(true).append(true).open(part);
        let out = open.map_err(|e| HubError::file(part, e))?;
        // Another process may fetch the same file: it is waited for, and what it has fetched is used.
        let out = tokio::task::spawn_blocking(move || out.lock().map(|()| out)).await;
        let out = out.map_err(|e| HubError::file(part, e))?.map_err(|e| HubError::file(part, e))?;
        if blob.exists() {
            // What was locked is either that, renamed, or a new file that nobody needs.
            let _ = std::fs::remove_file(part);
            return Ok(());
        }
        let mut out = tokio::fs::File::from_std(out);
        let length = async |out: &tokio::fs::File| out.metadata().await.map(|m| m.len());
        progress.begin(file, head.size, length(&out).await.map_err(|e| HubError::file(part, e))?);
        let mut tries = 0;
        let result = loop {
            let have = length(&out).await.map_err(|e| HubError::file(part, e))?;
            if have == head.size {
                // Under the lock: whoever waits for it finds the whole file.
                break std::fs::rename(part, blob).map_err(|e| HubError::file(blob, e));
            }
            if have > head.size {
                out.set_len(0).await.map_err(|e| HubError::file(part, e))?;
                continue;
            }
            let went = match self.go_on(url, have, &mut out, part, progress).await {
                Ok(reached) if reached < head.size => Err(HubError::Connection {
                    url: url.to_owned(),
                    message: format!("the answer ends at byte {reached} of {}", head.size),
                }),
                other => other,
            };
            match went {
                Err(error) if error.may_pass() && tries + 1 < TRIES => {
                    tries += 1;
                    tracing::warn!("{file} broke off ({error}); it goes on, try {} of {TRIES}", tries + 1);
                    tokio::time::sleep(PAUSE * 2u32.pow(tries - 1)).await;
                }
                Ok(_) => {}
                Err(error) => break Err(error),
            }
        };
        progress.end();
        result
    }

    /// One try: appends what comes from byte `have` on; where it has come to.
    async fn go_on(
        &self,
        url: &str,
        have: u64,
        out: &mut tokio::fs::File,
        part: &Path,
        progress: &dyn Progress,
    ) -> Result<u64, HubError> {
        let request = self.authorized(self.http.get(url)).header(RANGE, format!("bytes={have}-"));
        let response = request.send().await.map_err(|e| connection(url, &e))?;
        self.check(url, response.status())?;
        let mut have = have;
        if !continues_at(&response, have) {
            // The whole file comes.
            out.set_len(0).await.map_err(|e| HubError::file(part, e))?;
            have = 0;
        }
        let mut body = response.bytes_stream();
        while let Some(bytes) = body.next().await {
            let bytes = match bytes {
                Ok(bytes) => bytes,
                Err(e) => {
                    out.flush().await.map_err(|e| HubError::file(part, e))?;
                    return Err(connection(url, &e));
                }
            };
            out.write_all(&bytes).await.map_err(|e| HubError::file(part, e))?;
            have += bytes.len() as u64;
            progress.at(have);
        }
        out.flush().await.map_err(|e| HubError::file(part, e))?;
        Ok(have)
    }
}

/// Whether an answer is the part from byte `have` on.
fn continues_at(response: &Response, have: u64) -> bool {
    let range = text(response.headers(), CONTENT_RANGE.as_str());
    let from = range.and_then(|r| r.strip_prefix("bytes ")?.split('-').next()?.parse::<u64>().ok());
    response.status() == StatusCode::PARTIAL_CONTENT && from == Some(have)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// A path in an address; slashes stay.
fn escape(path: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~/".contains(&b);
    path.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

fn connection(url: &str, error: &reqwest::Error) -> HubError {
    HubError::Connection { url: url.to_owned(), message: describe(error) }
}

/// An error with its causes, without the address, which stands beside it.
fn describe(error: &reqwest::Error) -> String {
    let mut causes = Vec::new();
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(inner) = cause {
        causes.push(inner.to_string());
        cause = inner.source();
    }
    if causes.is_empty() { error.to_string() } else { causes.join(": ") }
}
