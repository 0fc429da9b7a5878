//! Paths as clients write them. Each client joins an endpoint's path to the base address that its user gave, with or
//! without `/v1` and a slash at the end.
use crate::http::operation::Operation;
use crate::http::state::ServerState;
use axum::Router;
use axum::http::Uri;
use axum::http::uri::PathAndQuery;
use axum::routing::MethodRouter;

/// Where the paths of OpenAI's protocol begin.
const VERSION: &str = "/v1";

/// Routes and their paths, by which a path that a client wrote otherwise is understood.
pub struct Routes {
    router: Router<ServerState>,
    paths: Paths,
    /// What the routes do, by their paths.
    operations: Vec<(&'static str, Operation)>,
}

impl Routes {
    /// No routes.
    pub fn new() -> Self {
        Routes { router: Router::new(), paths: Paths(Vec::new()), operations: Vec::new() }
    }

    /// Adds a route.
    pub fn route(self, path: &'static str, handler: MethodRouter<ServerState>) -> Self {
        let mut paths = self.paths;
        paths.0.push(path);
        Routes { router: self.router.route(path, handler), paths, ..self }
    }

    /// Routes that are described already, each answered by what `handler` makes for its path and method.
    pub fn described_as(
        operations: Vec<(&'static str, Operation)>,
        handler: impl Fn(&str, &str) -> MethodRouter<ServerState>,
    ) -> Self {
        let mut routes = Routes::new();
        for (path, operation) in operations {
            // A path that is there already gets another method.
            routes.router = routes.router.route(path, handler(path, operation.method));
            if !routes.paths.0.contains(&path) {
                routes.paths.0.push(path);
            }
            routes.operations.push((path, operation));
        }
        routes
    }

    /// Says what the route does that was added last.
    pub fn described(mut self, operation: Operation) -> Self {
        self.operations.extend(self.paths.0.last().map(|path| (*path, operation)));
        self
    }

    /// Takes what the routes do, by their paths. Every route has been described by then, since a front relays only
    /// what is.
    pub fn take_operations(&mut self) -> Vec<(&'static str, Operation)> {
        for path in &self.paths.0 {
            debug_assert!(self.operations.iter().any(|(described, _)| described == path), "{path} is not described");
        }
        std::mem::take(&mut self.operations)
    }

    /// Adds the routes of another protocol.
    pub fn merge(mut self, other: Routes) -> Self {
        self.paths.0.extend(other.paths.0);
        self.operations.extend(other.operations);
        Routes { router: self.router.merge(other.router), ..self }
    }

    /// Changes the router and leaves its paths.
    pub fn map(self, change: impl FnOnce(Router<ServerState>) -> Router<ServerState>) -> Self {
        Routes { router: change(self.router), ..self }
    }

    /// The router and the paths of its routes.
    pub fn into_parts(self) -> (Router<ServerState>, Paths) {
        (self.router, self.paths)
    }
}

/// The paths of a server's routes. A segment in braces stands for any.
#[derive(Debug, Clone)]
pub struct Paths(Vec<&'static str>);

impl Paths {
    /// Gives `uri` the path that its route has.
    pub fn normalise(&self, uri: &mut Uri) {
        let Some(path) = self.route_path(uri.path()) else { return };
        let query = uri.query().map_or_else(String::new, |query| format!("?{query}"));
        let mut parts = std::mem::take(uri).into_parts();
        // The path's characters were those of a valid path before.
        parts.path_and_query = PathAndQuery::try_from(path + &query).ok();
        *uri = Uri::from_parts(parts).unwrap_or_default();
    }

    /// The path of the route that `path` means: slashes are single, none ends it, and [`VERSION`] is there once where
    /// it belongs. `None`: the path is that already.
    fn route_path(&self, path: &str) -> Option<String> {
        let mut segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        let versions = segments.iter().take_while(|segment| **segment == &VERSION[1..]).count();
        segments.drain(..versions);
        let versioned = match segments.first() {
            None => false,
            Some(first) if self.below_version().any(|below| below == *first) => true,
            Some(_) if self.has(&format!("/{}", segments.join("/"))) => false,
            Some(_) => versions > 0,
        };
        let meant = format!("{}/{}", if versioned { VERSION } else { "" }, segments.join("/"));
        (meant != path).then_some(meant)
    }

    fn has(&self, path: &str) -> bool {
        let is_name = |rest: &str| rest.strip_prefix('/').is_some_and(|name| !name.contains('/'));
        let is_in = |folder: &str| path.strip_prefix(folder).is_some_and(is_name);
        self.0.iter().any(|route| *route == path || route.split_once("/{").is_some_and(|(folder, _)| is_in(folder)))
    }

    /// The first segments of paths below [`VERSION`].
    fn below_version(&self) -> impl Iterator<Item = &str> {
        let below = self.0.iter().filter_map(|path| path.strip_prefix(VERSION)?.strip_prefix('/'));
        below.filter_map(|path| path.split('/').next())
    }

    /// A sentence that names the route whose path ends `path`, or all routes there are.
    pub fn suggestion(&self, path: &str) -> String {
        let named = self.0.iter().copied().filter(|route| route.len() > 1 && !route.contains('{'));
        let end = |route: &str| route.strip_prefix(VERSION).map_or_else(|| route.to_owned(), str::to_owned);
        match named.clone().find(|route| path.ends_with(&end(route))) {
            Some(route) => format!("{route} is what this server has"),
            None => format!("this server has {}", named.collect::<Vec<_>>().join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths() -> Paths {
        Paths(vec![
            "/",
            "/health",
            "/tokenize",
            "/v1/chat/completions",
            "/v1/completions",
            "/v1/models",
            "/v1/models/{*name}",
            "/web/{file}",
        ])
    }

    #[test]
    fn a_path_means_the_route_that_a_client_built_it_for() {
        for (written, meant) in [
            ("/v1/chat/completions", "/v1/chat/completions"),
            ("/chat/completions", "/v1/chat/completions"),
            ("/v1/v1/chat/completions", "/v1/chat/completions"),
            ("//v1//chat/completions/", "/v1/chat/completions"),
            ("/completions", "/v1/completions"),
            ("/v1/models/", "/v1/models"),
            ("/models/org/name", "/v1/models/org/name"),
            ("/v1/models/v1/health", "/v1/models/v1/health"),
            ("/v1/health", "/health"),
            ("/v1/tokenize/", "/tokenize"),
            ("/v1/web/main.js", "/web/main.js"),
            ("/web//main.js", "/web/main.js"),
            ("/v1/web/a/b", "/v1/web/a/b"),
            ("/v1/webé", "/v1/webé"),
            ("/v1", "/"),
            ("/v1/", "/"),
            ("//", "/"),
            ("/", "/"),
            ("/health/deep", "/health/deep"),
            ("/v1/rerank", "/v1/rerank"),
            ("/api/v1/chat/completions", "/api/v1/chat/completions"),
        ] {
            let mut uri: Uri = format!("{written}?a=//b/").parse().unwrap();
            paths().normalise(&mut uri);
            assert_eq!(uri.to_string(), format!("{meant}?a=//b/"), "{written}");
        }
        let mut absolute: Uri = "http://localhost:8000//models".parse().unwrap();
        paths().normalise(&mut absolute);
        assert_eq!(absolute, "http://localhost:8000/v1/models");
    }

    #[test]
    fn the_route_that_ends_a_path_is_named() {
        assert_eq!(paths().suggestion("/api/v1/chat/completions"), "/v1/chat/completions is what this server has");
        assert!(paths().suggestion("/v1/rerank").ends_with("/v1/completions, /v1/models"));
    }
}
