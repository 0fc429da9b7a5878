//! All routes of all protocols.
use crate::http::auth::require_key;
use crate::http::cache_header;
use crate::http::error::{ApiError, ErrorCode};
use crate::http::ids::REQUEST_ID;
use crate::http::listener::{self, Routers};
use crate::http::pages::{self, PagePolicy};
use crate::http::paths::{Paths, Routes};
use crate::http::state::ServerState;
use crate::http::status;
use crate::relay::{self, Relay};
use crate::{anthropic, api_docs, cache, llama_cpp, models, openai, sglang, vllm, web_page};
use axum::extract::Request;
use axum::http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderValue, Method, StatusCode, Uri};
use axum::middleware::{from_fn, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use std::future::Future;
use std::io;
use std::sync::Arc;
use tokio::net::TcpListener;
use tower::ServiceExt;
use tracing::Instrument;

/// The routes of a server, by who may ask for them.
struct Surface {
    /// Those that ask for the API key, if there is one.
    guarded: Routes,
    /// Those that do not.
    open: Routes,
    /// Those that are answered where there are too many connections.
    monitoring: Routes,
}

/// Serves until `shutdown` resolves. From then on new requests are refused with status 503, accepted ones may finish
/// within [`ServerConfig::shutdown_limit`](crate::ServerConfig::shutdown_limit), and then the listener closes.
///
/// Errors: the listener has no address.
pub async fn serve(
    listener: TcpListener,
    state: ServerState,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let guarded = model_routes().merge(models::routes());
    let guarded = guarded.map(|router| router.route_layer(from_fn(cache_header::tell)));
    let open = status::routes().merge(web_page::routes());
    serve_surface(listener, state, Surface { guarded, open, monitoring: status::routes() }, shutdown).await
}

/// Serves as [`serve`] does, but hands what a model is needed for on to `relay`.
///
/// Errors: the listener has no address.
pub async fn serve_relay(
    listener: TcpListener,
    state: ServerState,
    relay: impl Relay,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let operations = model_routes().take_operations();
    let guarded = relay::routes(operations, &relay).merge(relay::list_routes(&relay));
    let open = relay::status_routes(&relay).merge(web_page::routes());
    let monitoring = relay::status_routes(&relay);
    serve_surface(listener, state, Surface { guarded, open, monitoring }, shutdown).await
}

/// The routes of all protocols that are about one model.
fn model_routes() -> Routes {
    let protocols = openai::routes().merge(anthropic::routes());
    protocols.merge(cache::routes()).merge(vllm::routes()).merge(llama_cpp::routes()).merge(sglang::routes())
}

async fn serve_surface(
    listener: TcpListener,
    state: ServerState,
    surface: Surface,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let policy = Arc::new(PagePolicy::new(state.config(), listener.local_addr()?));
    let Surface { mut guarded, mut open, monitoring } = surface;
    let docs = api_docs::routes(&guarded.take_operations(), open.take_operations());
    let with_key = |routes: Routes| {
        let key = from_fn_with_state(state.clone(), require_key);
        routes.map(|router| router.route_layer(key))
    };
    // Behind a front nothing is open.
    let opened = |routes: Routes| if state.config().behind_front { with_key(routes) } else { routes };
    let (all, paths) = with_key(guarded).merge(opened(open.merge(docs))).into_parts();
    let (monitoring, _) = opened(monitoring).into_parts();
    let not_found = {
        let paths = paths.clone();
        move |method: Method, uri: Uri| async move { not_found(&method, uri.path(), &paths) }
    };
    let routers = Routers {
        all: finish(all.fallback(not_found), &paths, &state, &policy),
        monitoring: finish(monitoring.fallback(too_many_connections), &paths, &state, &policy),
    };
    listener::serve(listener, routers, state, shutdown).await;
    Ok(())
}

/// Adds to routes what is the same for all.
fn finish(routes: Router<ServerState>, paths: &Paths, state: &ServerState, policy: &Arc<PagePolicy>) -> Router {
    let routes = match state.config().behind_front {
        true => routes.layer(from_fn(relay::client_of_front)),
        false => routes,
    };
    let routes = routes
        .method_not_allowed_fallback(method_not_allowed)
        .layer(map_response(with_charset))
        .layer(pages::cors(policy.clone()))
        .layer(from_fn_with_state(policy.clone(), pages::guard))
        .with_state(state.clone());
    let (paths, state) = (paths.clone(), state.clone());
    // A router looks at the path before its layers run, so this one takes every path.
    Router::new().fallback(move |mut request: Request| {
        paths.normalise(request.uri_mut());
        let id = state.ids().of(request.headers());
        let span = tracing::info_span!("request", id = id.shown());
        request.extensions_mut().insert(id.clone());
        let for_anthropic = anthropic::error::is_for(&request);
        let answer = routes.clone().oneshot(request).instrument(span);
        async move {
            let mut answer = answer.await.into_response();
            name_methods(&mut answer);
            if for_anthropic {
                answer = anthropic::error::in_form(answer, id.shown());
            }
            if let Some(id) = id.to_header() {
                answer.headers_mut().insert(REQUEST_ID, id);
            }
            answer
        }
    })
}

fn not_found(method: &Method, path: &str, paths: &Paths) -> ApiError {
    ApiError::new(ErrorCode::NotFound, format!("there is no {method} {path}; {}", paths.suggestion(path)))
}

async fn too_many_connections() -> ApiError {
    let message = "as many connections have answers in work as this server can serve; try again soon";
    ApiError::new(ErrorCode::TooManyConnections, message)
}

async fn method_not_allowed(method: Method, uri: Uri) -> ApiError {
    ApiError::new(ErrorCode::MethodNotAllowed, format!("{} does not take {method}", uri.path()))
}

/// Has a refusal of a method tell which methods there are. Its head tells them once the router has answered.
fn name_methods(answer: &mut Response) {
    let headers = answer.headers();
    let allowed = headers.get(ALLOW).filter(|_| answer.status() == StatusCode::METHOD_NOT_ALLOWED);
    let error = answer.extensions().get::<ApiError>();
    if let Some((allowed, error)) = allowed.and_then(|allowed| allowed.to_str().ok()).zip(error) {
        let message = format!("{}; it takes {allowed}", error.message());
        let named = ApiError::new(ErrorCode::MethodNotAllowed, message);
        *answer.body_mut() = Json(named.to_json()).into_response().into_body();
        answer.headers_mut().remove(CONTENT_LENGTH);
        answer.extensions_mut().insert(named);
    }
}

/// Names the encoding of JSON and event streams, which some clients would else take for Latin-1.
async fn with_charset(mut response: Response) -> Response {
    if let Some(value) = response.headers_mut().get_mut(CONTENT_TYPE) {
        match value.as_bytes() {
            b"application/json" => *value = HeaderValue::from_static("application/json; charset=utf-8"),
            b"text/event-stream" => *value = HeaderValue::from_static("text/event-stream; charset=utf-8"),
            _ => {}
        }
    }
    response
}
