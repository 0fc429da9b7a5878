//! Paths as clients write them. Each client joins an endpoint's path to the base address that its user gave, with or
//! without `/v1` and a slash at the end.
use axum::http::Uri;
use axum::http::uri::PathAndQuery;

/// Where the paths of OpenAI's protocol begin.
const VERSION: &str = "/v1";
/// The first segments of paths below [`VERSION`].
const BELOW_VERSION: &[&str] = &["chat", "completions", "models"];
/// The paths beside [`VERSION`].
const BESIDE_VERSION: &[&str] = &["health", "version", "metrics", "tokenize", "detokenize"];

/// Gives `uri` the path that its route has.
pub fn normalise(uri: &mut Uri) {
    let Some(path) = route_path(uri.path()) else { return };
    let query = uri.query().map_or_else(String::new, |query| format!("?{query}"));
    let mut parts = std::mem::take(uri).into_parts();
    // The path's characters were those of a valid path before.
    parts.path_and_query = PathAndQuery::try_from(path + &query).ok();
    *uri = Uri::from_parts(parts).unwrap_or_default();
}

/// The path of the route that `path` means: slashes are single, none ends it, and [`VERSION`] is there once where it
/// belongs. `None`: the path is that already.
fn route_path(path: &str) -> Option<String> {
    let mut segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let versions = segments.iter().take_while(|segment| **segment == &VERSION[1..]).count();
    segments.drain(..versions);
    let versioned = match segments.first() {
        None => false,
        Some(first) if BELOW_VERSION.contains(first) => true,
        Some(first) if BESIDE_VERSION.contains(first) && segments.len() == 1 => false,
        Some(_) => versions > 0,
    };
    let meant = format!("{}/{}", if versioned { VERSION } else { "" }, segments.join("/"));
    (meant != path).then_some(meant)
}

/// A sentence that names the route whose path ends `path`, or all routes there are.
pub fn suggestion(path: &str) -> String {
    let routes = ["/v1/chat/completions", "/v1/completions", "/v1/models", "/tokenize", "/detokenize"];
    let meant = routes.iter().find(|route| {
        let end = route.strip_prefix(VERSION).unwrap_or(route);
        path.ends_with(end)
    });
    match meant {
        Some(route) => format!("{route} is what this server has"),
        None => format!("this server has {}, /health, /version and /metrics", routes.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            ("/v1", "/"),
            ("/v1/", "/"),
            ("//", "/"),
            ("/", "/"),
            ("/health/deep", "/health/deep"),
            ("/v1/embeddings", "/v1/embeddings"),
            ("/api/v1/chat/completions", "/api/v1/chat/completions"),
        ] {
            let mut uri: Uri = format!("{written}?a=//b/").parse().unwrap();
            normalise(&mut uri);
            assert_eq!(uri.to_string(), format!("{meant}?a=//b/"), "{written}");
        }
        let mut absolute: Uri = "http://localhost:8000//models".parse().unwrap();
        normalise(&mut absolute);
        assert_eq!(absolute, "http://localhost:8000/v1/models");
    }

    #[test]
    fn the_route_that_ends_a_path_is_named() {
        assert_eq!(suggestion("/api/v1/chat/completions"), "/v1/chat/completions is what this server has");
        assert!(suggestion("/v1/embeddings").contains("/v1/completions, /v1/models"));
    }
}
