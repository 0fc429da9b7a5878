//! `/`, the web page for people, and the files of it, which are in `web/` and built in. Neither asks for the API key:
//! the page asks its reader for it, and sends it with all that it asks the server for.
use crate::http::error::{ApiError, ErrorCode};
use crate::http::operation::Operation;
use crate::http::paths::Routes;
use axum::Json;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Map, Value, json};
use std::hash::{DefaultHasher, Hash, Hasher};

/// What the page may do: load its own files and ask this server, and nothing else. The last two directives have the
/// browser refuse to make elements of a text, so that what a model writes cannot become one.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

/// The file that is the page itself.
const PAGE: &str = "index.html";

macro_rules! web_files {
    ($($name:literal)*) => { &[$(($name, include_bytes!(concat!("../../../web/", $name)))),*] };
}

/// The names and contents of the page's files.
const FILES: &[(&str, &[u8])] = web_files!(
    "index.html" "style.css" "icon.svg" "main.js" "api.js" "chart.js" "chat.js" "conversation.js" "dom.js" "engine.js"
    "highlight.js" "inlines.js" "markdown.js" "message.js" "settings.js" "store.js" "values.js"
);

/// The routes.
pub fn routes() -> Routes {
    Routes::new()
        .route("/", get(root))
        .described(
            Operation::get("The web page for browsers; tells other clients what this server is")
                .answers::<Map<String, Value>>()
                .answers_text("text/html"),
        )
        .route("/web/{file}", get(file))
        .described(
            Operation::get("A file of the web page")
                .answers_text("text/javascript")
                .answers_text("text/css")
                .answers_text("image/svg+xml")
                .fails(&[ErrorCode::NotFound]),
        )
}

/// The page for whoever asks for HTML, as browsers do. A client that tries its base address is told what is here.
async fn root(headers: HeaderMap) -> Result<Response, ApiError> {
    let accepted = headers.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    let mut answer = if accepted.into_iter().any(|types| types.contains("text/html")) {
        web_file(PAGE, &headers)?
    } else {
        Json(json!({"server": "tallow", "version": env!("CARGO_PKG_VERSION"), "base_path": "/v1"})).into_response()
    };
    answer.headers_mut().append(VARY, HeaderValue::from_name(ACCEPT));
    Ok(answer)
}

async fn file(name: Result<Path<String>, PathRejection>, headers: HeaderMap) -> Result<Response, ApiError> {
    let name = name.map_or_else(|_| "a name that is not UTF-8".to_owned(), |name| name.0);
    web_file(&name, &headers)
}

/// A file with its type and its policy, or that the browser has it already. Browsers ask each time whether a file is
/// as it was, so that a page and a server of two versions never meet.
///
/// Errors: [`ErrorCode::NotFound`].
fn web_file(name: &str, headers: &HeaderMap) -> Result<Response, ApiError> {
    let Some((name, content)) = FILES.iter().find(|(known, _)| *known == name) else {
        return Err(ApiError::new(ErrorCode::NotFound, format!("the web page has no file {name:?}")));
    };
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    let tag = format!("\"{:016x}\"", hasher.finish());
    let known = headers.get_all(IF_NONE_MATCH).into_iter().filter_map(|value| value.to_str().ok());
    let is_known = known.flat_map(|tags| tags.split(',')).any(|known| known.trim().trim_start_matches("W/") == tag);
    let about: [(HeaderName, &str); 6] = [
        (CONTENT_TYPE, media_type(name)),
        (CACHE_CONTROL, "no-cache"),
        (ETAG, &tag),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    Ok(if is_known { (StatusCode::NOT_MODIFIED, about).into_response() } else { (about, *content).into_response() })
}

fn media_type(name: &str) -> &'static str {
    match name.rsplit_once('.') {
        Some((_, "html")) => "text/html; charset=utf-8",
        Some((_, "css")) => "text/css; charset=utf-8",
        Some((_, "svg")) => "image/svg+xml",
        _ => "text/javascript; charset=utf-8",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// A module that is imported and not built in would be missed by readers alone.
    #[test]
    fn every_file_of_the_page_is_built_in() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../web");
        let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let is_served = |name: &String| [".html", ".css", ".js", ".svg"].iter().any(|end| name.ends_with(end));
        let built_in: BTreeSet<String> = FILES.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(built_in, names.filter(is_served).collect());
    }
}
