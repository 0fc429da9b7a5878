//! `/openapi.json`, which describes all routes, and `/docs`, a page that shows it.
mod document;

use crate::http::operation::Operation;
use crate::http::paths::Routes;
use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::response::Html;
use axum::routing::get;
use document::document;
use serde_json::{Map, Value};
use std::future::ready;

const DOCUMENT: &str = "/openapi.json";
const PAGE: &str = "/docs";

/// The two routes, which the document describes too. `guarded` are the routes that ask for the API key, `open` those
/// that do not, with their paths.
pub fn routes(guarded: &[(&'static str, Operation)], mut open: Vec<(&'static str, Operation)>) -> Routes {
    let own = Operation::get("This description of the server's interface, as OpenAPI 3.1");
    open.push((DOCUMENT, own.answers::<Map<String, Value>>()));
    open.push((PAGE, Operation::get("A page that shows this description").answers_text("text/html")));
    let document = Bytes::from(document(guarded, &open).to_string());
    let answer = move || ready(([(CONTENT_TYPE, "application/json")], document.clone()));
    Routes::new().route(DOCUMENT, get(answer)).route(PAGE, get(|| ready(Html(include_str!("page.html")))))
}
