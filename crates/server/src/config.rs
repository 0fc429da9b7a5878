//! The settings of the HTTP server.
use axum::http::Uri;
use std::str::FromStr;
use std::time::Duration;
use thiserror::Error;

/// Everything that the HTTP server can be told. `Default` listens at 127.0.0.1:8000 without an API key.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// The name or address to listen at.
    pub host: String,
    /// The TCP port to listen at; 0 lets the system choose a free one.
    pub port: u16,
    /// The key that clients must send as `Authorization: Bearer KEY` or `x-api-key: KEY`. With `None` the server is
    /// open to whoever reaches it.
    pub api_key: Option<String>,
    /// The origins whose web pages may use the server, beside pages of this machine.
    pub cors_origins: Vec<CorsOrigin>,
    /// Names of this server, beside addresses and names that the public DNS does not have. If it is empty, names are
    /// checked only at an address of this machine alone and without a key.
    pub allowed_hosts: Vec<AllowedHost>,
    /// Names by which requests may ask for the model; answers carry the first one. If it is empty, the model has the
    /// engine's name for it.
    pub served_model_name: Vec<String>,
    /// The most tokens of an answer to a request that names no limit. `None`: up to the context's end.
    pub max_tokens_default: Option<usize>,
    /// The largest request body in bytes; a larger one is answered with status 413.
    pub max_body_bytes: usize,
    /// How long a connection is kept that no request comes on. Clients close theirs after 90 s at most, as far as they
    /// are known; one that is closed by the server may fail the request that the client is just sending.
    pub keep_alive_timeout: Duration,
    /// How long a client may take to send a request's head, and how long it may pause in a body.
    pub read_timeout: Duration,
    /// How long a client may take nothing of an answer that is there.
    pub write_timeout: Duration,
    /// Connections that are served at once. Beyond them, those that have waited longest for a request are closed; if
    /// all have answers in work, new ones are answered 503, but for monitoring. `None`: as many as the process may have
    /// descriptors, but for some.
    pub max_connections: Option<usize>,
    /// Descriptors that a connection takes: its own, and that of another on which its requests are handed on.
    pub descriptors_per_connection: usize,
    /// Whether the only client is a front, another server that this one is a part of. Every route then asks for the
    /// key, and the front's header tells whose request it is.
    pub behind_front: bool,
    /// How long accepted requests may go on after a shutdown has begun.
    pub shutdown_limit: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        ServerConfig {
            host: "127.0.0.1".into(),
            port: 8000,
            api_key: None,
            cors_origins: Vec::new(),
            allowed_hosts: Vec::new(),
            served_model_name: Vec::new(),
            max_tokens_default: None,
            max_body_bytes: 4 << 20,
            keep_alive_timeout: Duration::from_secs(120),
            read_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(300),
            max_connections: None,
            descriptors_per_connection: 1,
            behind_front: false,
            shutdown_limit: Duration::from_secs(30),
        }
    }
}

/// A setting of [`ServerConfig`] cannot be what a text says.
#[derive(Debug, Error)]
#[error("is {given:?}; it must be {allowed}")]
pub struct InvalidSetting {
    given: String,
    allowed: &'static str,
}

/// An origin whose web pages may use the server, as `FromStr` reads it: `*` for any, or the scheme, host and port that
/// a browser sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorsOrigin(Option<String>);

impl CorsOrigin {
    pub(crate) fn allows(&self, origin: &str) -> bool {
        self.0.as_ref().is_none_or(|allowed| allowed.eq_ignore_ascii_case(origin))
    }
}

impl FromStr for CorsOrigin {
    type Err = InvalidSetting;

    fn from_str(text: &str) -> Result<Self, InvalidSetting> {
        let text = text.trim();
        let invalid = || InvalidSetting {
            given: text.into(),
            allowed: "* or an origin as browsers send it, such as https://chat.example.com or http://192.168.1.5:3000",
        };
        match text {
            "*" => Ok(CorsOrigin(None)),
            // What browsers send for pages that are files.
            "null" => Ok(CorsOrigin(Some(text.into()))),
            _ => {
                let uri: Uri = text.parse().map_err(|_| invalid())?;
                let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
                    return Err(invalid());
                };
                let bare = uri.path().trim_matches('/').is_empty() && uri.query().is_none();
                if !bare || authority.as_str().contains('@') {
                    return Err(invalid());
                }
                // Browsers leave out the port that a scheme has by default.
                let host = match (scheme, authority.port_u16()) {
                    ("http", Some(80)) | ("https", Some(443)) => authority.host(),
                    _ => authority.as_str(),
                };
                Ok(CorsOrigin(Some(format!("{scheme}://{host}"))))
            }
        }
    }
}

/// A name by which clients may ask for the server, as `FromStr` reads it: `*` for any, a name, or `.example.com` for
/// that name and all below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedHost(String);

impl AllowedHost {
    /// `name` is in lower case and without a port.
    pub(crate) fn allows(&self, name: &str) -> bool {
        match self.0.strip_prefix('.') {
            _ if self.0 == "*" => true,
            Some(domain) => name == domain || name.ends_with(&self.0),
            None => name == self.0,
        }
    }
}

impl FromStr for AllowedHost {
    type Err = InvalidSetting;

    fn from_str(text: &str) -> Result<Self, InvalidSetting> {
        let name = text.trim().to_ascii_lowercase();
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name == "*" || (name.chars().all(is_name) && name.chars().any(|c| c != '.')) {
            return Ok(AllowedHost(name));
        }
        let allowed =
            "* or a name without scheme and port, such as tallow.example.com, or .example.com for all below it";
        Err(InvalidSetting { given: text.into(), allowed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_what_browsers_send() {
        let origin = |text: &str| text.parse::<CorsOrigin>();
        assert!(origin("*").unwrap().allows("https://any.example"));
        for (text, sent) in [
            ("https://Chat.example.com/", "https://chat.example.com"),
            ("https://a.example:443", "https://a.example"),
            ("http://a.example:3000", "http://a.example:3000"),
            ("app://obsidian.md", "app://obsidian.md"),
            ("null", "null"),
        ] {
            assert!(origin(text).unwrap().allows(sent), "{text}");
            assert!(!origin(text).unwrap().allows("https://other.example"), "{text}");
        }
        for text in ["", "chat.example.com", "https://a.example/path", "https://user@a.example", "https://"] {
            let error = origin(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("is {text:?}; it must be * or an origin")), "{error}");
        }
    }

    #[test]
    fn hosts_are_names_with_or_without_all_below_them() {
        let host = |text: &str| text.parse::<AllowedHost>();
        assert!(host("Tallow.example.com").unwrap().allows("tallow.example.com"));
        assert!(!host("example.com").unwrap().allows("tallow.example.com"));
        let below = host(".example.com").unwrap();
        assert!(below.allows("example.com") && below.allows("a.b.example.com") && !below.allows("badexample.com"));
        assert!(host("*").unwrap().allows("anything"));
        for text in ["", ".", "http://example.com", "example.com:80", "a b"] {
            assert!(host(text).unwrap_err().to_string().contains("name without scheme and port"), "{text}");
        }
    }
}
