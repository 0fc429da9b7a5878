//! Web pages: which may use the server (`Origin`, CORS), and by which names (`Host`).
use crate::common::{Options, Server, chat_body, error, start};
use reqwest::{Method, Response};
use serde_json::json;
use server::ServerConfig;

const CHAT: &str = "/v1/chat/completions";

async fn with_config(change: impl FnOnce(&mut ServerConfig)) -> Server {
    let mut config = ServerConfig { port: 0, ..Default::default() };
    change(&mut config);
    start(Options { config, ..Default::default() }).await
}

async fn send(server: &Server, method: Method, path: &str, headers: &[(&str, &str)]) -> Response {
    let mut request = server.client.request(method.clone(), format!("{}{path}", server.url));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if method == Method::POST {
        // A page may send this type without asking first.
        request = request.header("content-type", "text/plain").body(chat_body(json!({})).to_string());
    }
    request.send().await.unwrap()
}

async fn refused(response: Response, told: &str) {
    let (status, code, _, object) = error(response).await;
    assert_eq!((status, code.as_str()), (403, "not_allowed"));
    assert!(object["message"].as_str().unwrap().contains(told), "{object}");
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn a_name_of_the_public_dns_is_refused_on_loopback_without_a_key() {
    let server = with_config(|_| ()).await;
    for path in ["/v1/models", "/health", "/nowhere"] {
        let response = send(&server, Method::GET, path, &[("host", "rebound.example:8000")]).await;
        refused(response, "the host \"rebound.example:8000\" is not known").await;
    }
    let response = send(&server, Method::POST, CHAT, &[("host", "localhost.Evil.example")]).await;
    refused(response, "start the server with --allowed-host localhost.evil.example").await;
    assert!(server.seen.requests.lock().unwrap().is_empty());
    for host in
        ["localhost:1", "127.0.0.1", "[::1]:8000", "192.168.1.5", "mac.local:80", "host.docker.internal", "LOCALHOST."]
    {
        assert_eq!(send(&server, Method::GET, "/v1/models", &[("host", host)]).await.status(), 200, "{host}");
    }
}

#[tokio::test]
async fn hosts_are_checked_where_it_helps() {
    let foreign = [("host", "tallow.example.com")];
    let named = with_config(|c| c.allowed_hosts = vec![".example.com".parse().unwrap()]).await;
    assert_eq!(send(&named, Method::GET, "/v1/models", &foreign).await.status(), 200);
    refused(send(&named, Method::GET, "/v1/models", &[("host", "example.org")]).await, "example.org").await;
    let any = with_config(|c| c.allowed_hosts = vec!["*".parse().unwrap()]).await;
    assert_eq!(send(&any, Method::GET, "/v1/models", &foreign).await.status(), 200);
    // A page does not have the key.
    let keyed = with_config(|c| c.api_key = Some("secret".into())).await;
    assert_eq!(send(&keyed, Method::GET, "/health", &foreign).await.status(), 200);
    // Nobody knows by which names an address of a network is reached.
    let mut everywhere = with_config(|c| c.host = "0.0.0.0".into()).await;
    everywhere.url = everywhere.url.replace("0.0.0.0", "127.0.0.1");
    assert_eq!(send(&everywhere, Method::GET, "/v1/models", &foreign).await.status(), 200);
}

#[tokio::test]
async fn a_foreign_page_can_neither_post_nor_read() {
    let server = with_config(|_| ()).await;
    for origin in [
        "https://evil.example",
        "HTTP://evil.example",
        "blob:http://evil.example",
        "http://localhost.evil.example",
        "null",
    ] {
        let headers = [("origin", origin)];
        refused(send(&server, Method::POST, CHAT, &headers).await, "--cors-origin").await;
        let asks = [("origin", origin), ("access-control-request-method", "POST")];
        refused(send(&server, Method::OPTIONS, CHAT, &asks).await, origin).await;
        let read = send(&server, Method::GET, "/v1/models", &headers).await;
        assert_eq!((read.status().as_u16(), header(&read, "access-control-allow-origin")), (200, None));
    }
    let both = [("origin", "http://localhost"), ("origin", "http://evil.example")];
    refused(send(&server, Method::POST, CHAT, &both).await, "evil.example").await;
    assert!(server.seen.requests.lock().unwrap().is_empty());
    // A server that is reached over a network is as open to them.
    let mut everywhere = with_config(|c| c.host = "0.0.0.0".into()).await;
    everywhere.url = everywhere.url.replace("0.0.0.0", "127.0.0.1");
    refused(send(&everywhere, Method::POST, CHAT, &[("origin", "https://evil.example")]).await, "evil.example").await;
}

#[tokio::test]
async fn pages_of_this_machine_this_server_and_applications_may_use_it() {
    let server = with_config(|_| ()).await;
    let own = server.url.clone();
    for origin in ["http://localhost:3000", "http://127.0.0.1:5173", "http://[::1]", "tauri://localhost", own.as_str()]
    {
        let answer = send(&server, Method::POST, CHAT, &[("origin", origin)]).await;
        assert_eq!((answer.status().as_u16(), header(&answer, "access-control-allow-origin")), (200, Some(origin)));
    }
    // A program sends no origin.
    let answer = send(&server, Method::POST, CHAT, &[]).await;
    assert_eq!((answer.status().as_u16(), header(&answer, "access-control-allow-origin")), (200, None));
}

#[tokio::test]
async fn configured_origins_are_told_what_they_may() {
    let page = "https://chat.example.com";
    for (origins, key) in [(page, None), ("*", None), (page, Some("secret"))] {
        let server = with_config(|c| {
            c.cors_origins = vec![origins.parse().unwrap()];
            c.api_key = key.map(str::to_owned);
        })
        .await;
        let preflight = [
            ("origin", page),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "authorization,content-type,x-stainless-lang"),
            ("access-control-request-private-network", "true"),
        ];
        let answer = send(&server, Method::OPTIONS, CHAT, &preflight).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(header(&answer, "access-control-allow-origin"), Some(page));
        assert_eq!(header(&answer, "access-control-allow-private-network"), Some("true"));
        assert_eq!(
            header(&answer, "access-control-allow-headers"),
            Some("authorization,content-type,x-stainless-lang")
        );
        assert!(header(&answer, "access-control-allow-methods").unwrap().contains("POST"));
        assert!(header(&answer, "vary").unwrap().contains("origin"));
        // Errors can be read as well.
        let status = if key.is_some() { 401 } else { 200 };
        let answer = send(&server, Method::POST, CHAT, &[("origin", page)]).await;
        assert_eq!((answer.status().as_u16(), header(&answer, "access-control-allow-origin")), (status, Some(page)));
        let missing = send(&server, Method::GET, "/nowhere", &[("origin", page)]).await;
        assert_eq!((missing.status().as_u16(), header(&missing, "access-control-allow-origin")), (404, Some(page)));
    }
    let server = with_config(|c| c.cors_origins = vec![page.parse().unwrap()]).await;
    refused(send(&server, Method::POST, CHAT, &[("origin", "https://other.example.com")]).await, "other").await;
}
