//! The hub over HTTP.
use crate::cache::{Cache, is_below, is_commit};
use crate::http::http_for;
use crate::inventory::check_content;
use crate::{DownloadProgress, HubConfig, HubError, ModelName};
use futures_util::StreamExt;
use reqwest::header::{CONTENT_RANGE, ETAG, HeaderMap, LOCATION, RANGE};
use reqwest::redirect::Policy;
use reqwest::{Response, StatusCode};
use serde::Deserialize;
use std::path::Path;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// How often a download that breaks off is tried; each try goes on where the last one ended.
const MAX_TRIES: u32 = 5;
/// The pause after the first try. Each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// A connection over which no byte comes for this long counts as broken.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// A connection must be made within this time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a file's address may lead on to another one.
const MAX_REDIRECTS: usize = 5;

/// The hub, as a client of one model's repository sees it.
pub(crate) struct HubClient {
    /// Follows redirects.
    http: reqwest::Client,
    /// Follows none: the headers of a file's address are those before it leads on to a content network.
    direct: reqwest::Client,
    endpoint: String,
    token: Option<String>,
    model: ModelName,
}

/// A commit and the paths of its files.
pub(crate) struct Listing {
    pub commit: String,
    pub files: Vec<String>,
}

/// A file's content, as the headers of the file's address describe it.
struct ContentHeaders {
    /// Names the content.
    etag: String,
    /// Bytes of the content.
    size: u64,
}

impl HubClient {
    /// A client for the repository of `model`.
    ///
    /// Errors: TLS cannot be set up.
    pub fn new(config: &HubConfig, model: &ModelName) -> Result<Self, HubError> {
        let build = |redirect| {
            let agent = concat!("tallow/", env!("CARGO_PKG_VERSION"));
            let builder = http_for(&config.endpoint).user_agent(agent).redirect(redirect);
            builder
                .connect_timeout(CONNECT_TIMEOUT)
                .read_timeout(READ_TIMEOUT)
                .build()
                .map_err(|e| HubError::Connection { url: config.endpoint.clone(), message: describe(&e) })
        };
        Ok(HubClient {
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

    /// Asks which commit a revision is, and which files it has.
    ///
    /// Errors: a model or revision that does not exist or may not be read, no connection.
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
        // A name that leads out of the folder of the commit is left out.
        let files = info.siblings.into_iter().map(|s| s.rfilename).filter(|file| is_below(file)).collect();
        Ok(Listing { commit: info.sha, files })
    }

    /// Errors: a status that means a failure.
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

    /// Puts `file` into the folder of `commit`. Its content comes from the cache or from the hub.
    ///
    /// Errors: a file that is not in the repository, a download that fails, a cache that cannot be written.
    pub async fn fetch(
        &self,
        cache: &Cache,
        commit: &str,
        file: &str,
        progress: &dyn DownloadProgress,
    ) -> Result<(), HubError> {
        if cache.commit_folder(commit).join(file).exists() {
            return Ok(());
        }
        let url = self.address(commit, file);
        let content = self.content_headers(&url, file).await?;
        let blob = cache.blob(&content.etag)?;
        if !blob.exists() {
            self.download(&url, file, &content, &blob, progress).await?;
        }
        cache.link(commit, file, &blob)
    }

    /// The address of a file of a commit.
    fn address(&self, commit: &str, file: &str) -> String {
        format!("{}/{}/resolve/{commit}/{}", self.endpoint, self.model.repo, escape(file))
    }

    /// The address and the size in bytes of a file of a commit.
    ///
    /// Errors: a file that is not in the repository, no connection.
    pub async fn locate(&self, commit: &str, file: &str) -> Result<(String, u64), HubError> {
        let url = self.address(commit, file);
        let size = self.content_headers(&url, file).await?.size;
        Ok((url, size))
    }

    /// The bytes from `from` up to `to` of what lies at `url`, which are asked for again where a connection breaks.
    ///
    /// Errors: no connection after several tries, content that ends before `to`.
    pub async fn range(&self, url: &str, from: u64, to: u64) -> Result<Vec<u8>, HubError> {
        let mut tries = 1;
        loop {
            match self.try_range(url, from, to).await {
                Err(error) if error.is_transient() && tries < MAX_TRIES => {
                    tokio::time::sleep(FIRST_PAUSE * 2u32.pow(tries - 1)).await;
                    tries += 1;
                }
                other => return other,
            }
        }
    }

    async fn try_range(&self, url: &str, from: u64, to: u64) -> Result<Vec<u8>, HubError> {
        if from == to {
            return Ok(Vec::new());
        }
        let request = self.authorized(self.http.get(url)).header(RANGE, format!("bytes={from}-{}", to - 1));
        let response = request.send().await.map_err(|e| connection(url, &e))?;
        self.check(url, response.status())?;
        // A server that knows no ranges sends the whole content.
        let mut skip = if continues_at(&response, from) { 0 } else { from };
        let (mut bytes, length) = (Vec::new(), (to - from) as usize);
        let mut body = response.bytes_stream();
        while bytes.len() < length {
            let Some(piece) = body.next().await else {
                let message = format!("the answer ends {} bytes too early", length - bytes.len());
                return Err(HubError::Connection { url: url.to_owned(), message });
            };
            let piece = piece.map_err(|e| connection(url, &e))?;
            let skipped = skip.min(piece.len() as u64);
            skip -= skipped;
            bytes.extend_from_slice(&piece[skipped as usize..]);
        }
        bytes.truncate(length);
        Ok(bytes)
    }

    /// The etag and size of a file's content, which the hub's headers tell whatever network the content comes from.
    async fn content_headers(&self, url: &str, file: &str) -> Result<ContentHeaders, HubError> {
        let mut at = url.to_owned();
        for _ in 0..MAX_REDIRECTS {
            let response = self.authorized(self.direct.head(&at)).send().await.map_err(|e| connection(&at, &e))?;
            if response.status() == StatusCode::NOT_FOUND {
                return Err(HubError::MissingFile { model: self.model.repo.clone(), file: file.to_owned() });
            }
            self.check(&at, response.status())?;
            let headers = response.headers();
            // The address of a repository that was renamed leads on to its new one.
            if let Some(to) = text(headers, LOCATION.as_str()).filter(|to| to.starts_with('/')) {
                at = format!("{}{to}", self.endpoint);
                continue;
            }
            let answer = |message: &str| HubError::Answer { url: at.clone(), message: message.into() };
            let etag = text(headers, "x-linked-etag").or_else(|| text(headers, ETAG.as_str()));
            let etag = etag.ok_or_else(|| answer("no ETag"))?;
            let size = text(headers, "x-linked-size").or_else(|| text(headers, "content-length"));
            let size = size.and_then(|s| s.parse().ok()).ok_or_else(|| answer("no size"))?;
            return Ok(ContentHeaders { etag: etag.trim_start_matches("W/").trim_matches('"').to_owned(), size });
        }
        Err(HubError::Answer { url: url.to_owned(), message: "it leads on without end".into() })
    }

    /// Fills the file `blob` under another name, and renames it when it is whole and holds what its etag says. It goes
    /// on where an earlier try or process has stopped.
    async fn download(
        &self,
        url: &str,
        file: &str,
        content: &ContentHeaders,
        blob: &Path,
        progress: &dyn DownloadProgress,
    ) -> Result<(), HubError> {
        let (incomplete, size, etag) = (&blob.with_extension("incomplete"), content.size, &content.etag);
        let open = std::fs::OpenOptions::new().create(true).append(true).open(incomplete);
        let out = open.map_err(|e| HubError::file(incomplete, e))?;
        // Another process may be fetching the same file. The lock waits for it, and then its file is used.
        let out = tokio::task::spawn_blocking(move || out.lock().map(|()| out)).await;
        let out = out.map_err(|e| HubError::file(incomplete, e))?.map_err(|e| HubError::file(incomplete, e))?;
        if blob.exists() {
            // The locked file is either the renamed one or a new one that nobody needs.
            let _ = std::fs::remove_file(incomplete);
            return Ok(());
        }
        let mut out = tokio::fs::File::from_std(out);
        let length = async |out: &tokio::fs::File| out.metadata().await.map(|m| m.len());
        progress.begin(file, size, length(&out).await.map_err(|e| HubError::file(incomplete, e))?);
        let mut tries = 0;
        let result = loop {
            let have = length(&out).await.map_err(|e| HubError::file(incomplete, e))?;
            if have == size {
                let (path, etag) = (incomplete.clone(), etag.to_owned());
                let checked = tokio::task::spawn_blocking(move || check_content(&path, &etag)).await;
                if let Err(error) = checked.map_err(|e| HubError::file(incomplete, e)).flatten() {
                    break Err(error);
                }
                // The lock is still held, so that whoever waits for it finds the whole file.
                break std::fs::rename(incomplete, blob).map_err(|e| HubError::file(blob, e));
            }
            if have > size {
                out.set_len(0).await.map_err(|e| HubError::file(incomplete, e))?;
                continue;
            }
            let result = match self.append(url, have, &mut out, incomplete, progress).await {
                Ok(reached) if reached < size => Err(HubError::Connection {
                    url: url.to_owned(),
                    message: format!("the answer ends at byte {reached} of {size}"),
                }),
                other => other,
            };
            match result {
                Err(error) if error.is_transient() && tries + 1 < MAX_TRIES => {
                    tries += 1;
                    tracing::warn!("{file} broke off ({error}); it goes on, try {} of {MAX_TRIES}", tries + 1);
                    tokio::time::sleep(FIRST_PAUSE * 2u32.pow(tries - 1)).await;
                }
                Ok(_) => {}
                Err(error) => break Err(error),
            }
        };
        progress.end();
        result
    }

    /// Tries once to append the content from byte `have` on to the file at `path`, which `out` is. Returns the file's
    /// length.
    async fn append(
        &self,
        url: &str,
        have: u64,
        out: &mut tokio::fs::File,
        path: &Path,
        progress: &dyn DownloadProgress,
    ) -> Result<u64, HubError> {
        let request = self.authorized(self.http.get(url)).header(RANGE, format!("bytes={have}-"));
        let response = request.send().await.map_err(|e| connection(url, &e))?;
        self.check(url, response.status())?;
        let mut have = have;
        if !continues_at(&response, have) {
            // The answer is the whole content.
            out.set_len(0).await.map_err(|e| HubError::file(path, e))?;
            have = 0;
        }
        let mut body = response.bytes_stream();
        while let Some(bytes) = body.next().await {
            let bytes = match bytes {
                Ok(bytes) => bytes,
                Err(e) => {
                    out.flush().await.map_err(|e| HubError::file(path, e))?;
                    return Err(connection(url, &e));
                }
            };
            out.write_all(&bytes).await.map_err(|e| HubError::file(path, e))?;
            have += bytes.len() as u64;
            progress.at(have);
        }
        out.flush().await.map_err(|e| HubError::file(path, e))?;
        Ok(have)
    }
}

/// Whether an answer holds the content from byte `have` on.
fn continues_at(response: &Response, have: u64) -> bool {
    let range = text(response.headers(), CONTENT_RANGE.as_str());
    let from = range.and_then(|r| r.strip_prefix("bytes ")?.split('-').next()?.parse::<u64>().ok());
    response.status() == StatusCode::PARTIAL_CONTENT && from == Some(have)
}

/// A header's value, if it is text.
fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Escapes a path for use in an address. Slashes stay.
fn escape(path: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~/".contains(&b);
    path.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

fn connection(url: &str, error: &reqwest::Error) -> HubError {
    HubError::Connection { url: url.to_owned(), message: describe(error) }
}

/// The causes of an error. The error itself would repeat the address.
fn describe(error: &reqwest::Error) -> String {
    let mut causes = Vec::new();
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(inner) = cause {
        causes.push(inner.to_string());
        cause = inner.source();
    }
    if causes.is_empty() { error.to_string() } else { causes.join(": ") }
}
