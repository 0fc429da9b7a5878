//! What web pages may do. A page of any site can send requests to the servers that its reader's browser reaches, and
//! can read the answers too once the site's name leads to such a server (DNS rebinding).
use crate::config::{AllowedHost, CorsOrigin, ServerConfig};
use crate::http::cache_header::CACHE;
use crate::http::error::{ApiError, ErrorCode};
use crate::http::ids::REQUEST_ID;
use axum::extract::{Request, State};
use axum::http::header::{HOST, ORIGIN, RETRY_AFTER};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, Uri};
use axum::middleware::Next;
use axum::response::Response;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, AllowPrivateNetwork, CorsLayer};

/// How long a browser may remember what it was told of a page.
const PREFLIGHT_AGE: Duration = Duration::from_secs(600);

/// The rules for web pages.
pub struct PagePolicy {
    origins: Vec<CorsOrigin>,
    hosts: Vec<AllowedHost>,
    checks_hosts: bool,
    checks_origins: bool,
}

impl PagePolicy {
    /// The rules of a server that listens at `address`. Where a key is asked for, no page can do anything without it.
    /// An address that others reach has names that this server cannot know, so hosts are checked there only if some are
    /// configured.
    pub fn new(config: &ServerConfig, address: SocketAddr) -> Self {
        let open = config.api_key.is_none();
        PagePolicy {
            origins: config.cors_origins.clone(),
            hosts: config.allowed_hosts.clone(),
            checks_hosts: !config.allowed_hosts.is_empty() || (open && address.ip().is_loopback()),
            checks_origins: open,
        }
    }

    /// Errors: [`ErrorCode::NotAllowed`] for a host that is not this server's, and for a foreign page's request that
    /// may change something.
    fn check(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
        // A host that is not ASCII is nobody's name; it is shown as what no host is called.
        let named = headers.get_all(HOST).into_iter().map(|host| host.to_str().unwrap_or("not.ASCII"));
        let foreign = uri.authority().map(Authority::as_str).into_iter().chain(named).find(|h| !self.allows_host(h));
        if let Some(host) = foreign.filter(|_| self.checks_hosts) {
            let message = format!(
                "the host {host:?} is not known to be this server; if it is, start the server with --allowed-host {}",
                host_name(host)
            );
            return Err(ApiError::new(ErrorCode::NotAllowed, message));
        }
        let reads = method == Method::GET || method == Method::HEAD;
        let foreign = headers.get_all(ORIGIN).into_iter().find(|origin| !self.allows_origin(origin, headers));
        if let Some(origin) = foreign.filter(|_| self.checks_origins && !reads) {
            let origin = origin.to_str().unwrap_or("not ASCII");
            let message = format!(
                "pages of {origin:?} may not use this server; if they shall, start the server with --cors-origin \
                 {origin}"
            );
            return Err(ApiError::new(ErrorCode::NotAllowed, message));
        }
        Ok(())
    }

    /// Addresses cannot be made to lead elsewhere, and the names that are allowed here are not in the public DNS.
    fn allows_host(&self, host: &str) -> bool {
        let name = host_name(host);
        let private =
            !name.contains('.') || [".localhost", ".local", ".internal"].iter().any(|end| name.ends_with(end));
        is_address(&name) || private || self.hosts.iter().any(|allowed| allowed.allows(&name))
    }

    /// Pages of this machine, of this server and of the configured origins are allowed, as is what is no web page.
    fn allows_origin(&self, origin: &HeaderValue, headers: &HeaderMap) -> bool {
        let Ok(origin) = origin.to_str() else { return false };
        if self.origins.iter().any(|allowed| allowed.allows(origin)) {
            return true;
        }
        match origin.to_ascii_lowercase().split_once("://") {
            Some(("http" | "https", host)) => {
                let own = headers.get(HOST).and_then(|own| own.to_str().ok());
                own.is_some_and(|own| own.eq_ignore_ascii_case(host)) || is_this_machine(&host_name(host))
            }
            // Applications and extensions, such as tauri://localhost, but not blob:http://.., which a page made. A page
            // in a sandbox or a file sends "null".
            Some((scheme, _)) => !scheme.contains(':'),
            None => false,
        }
    }
}

/// The name or address of a `Host` header, without the port.
fn host_name(host: &str) -> String {
    let name = host.parse::<Authority>().map_or_else(|_| host.to_owned(), |authority| authority.host().to_owned());
    name.trim_end_matches('.').to_ascii_lowercase()
}

fn address(name: &str) -> Option<IpAddr> {
    name.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

fn is_address(name: &str) -> bool {
    address(name).is_some()
}

fn is_this_machine(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost") || address(name).is_some_and(|address| address.is_loopback())
}

/// Lets a request pass if the [`PagePolicy`] allows it.
pub async fn guard(State(policy): State<Arc<PagePolicy>>, request: Request, next: Next) -> Result<Response, ApiError> {
    policy.check(request.method(), request.uri(), request.headers())?;
    Ok(next.run(request).await)
}

/// Answers preflights, and tells browsers which pages may read answers.
pub fn cors(policy: Arc<PagePolicy>) -> CorsLayer {
    let allowed = move |origin: &HeaderValue, parts: &Parts| policy.allows_origin(origin, &parts.headers);
    CorsLayer::new()
        .allow_private_network(AllowPrivateNetwork::predicate(allowed.clone()))
        .allow_origin(AllowOrigin::predicate(allowed))
        .allow_methods(AllowMethods::list([Method::GET, Method::HEAD, Method::POST, Method::DELETE]))
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([RETRY_AFTER, REQUEST_ID, CACHE])
        .max_age(PREFLIGHT_AGE)
}
