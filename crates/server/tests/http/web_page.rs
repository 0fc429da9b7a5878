//! The web page at `/`.
use crate::common::{Options, Server, error, start};
use reqwest::Response;
use serde_json::Value;
use server::ServerConfig;

const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

/// A server that asks for a key, which nothing here sends.
async fn guarded() -> Server {
    let config = ServerConfig { port: 0, api_key: Some("secret".into()), ..Default::default() };
    start(Options { config, ..Default::default() }).await
}

async fn get(server: &Server, path: &str, header: (&str, &str)) -> Response {
    server.client.get(format!("{}{path}", server.url)).header(header.0, header.1).send().await.unwrap()
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers()[name].to_str().unwrap()
}

#[tokio::test]
async fn browsers_are_given_the_page_and_other_clients_what_the_server_is() {
    let server = guarded().await;
    for path in ["/", "/v1", "/v1/"] {
        let page = get(&server, path, ("accept", BROWSER)).await;
        assert_eq!((page.status().as_u16(), header(&page, "content-type")), (200, "text/html; charset=utf-8"));
        assert!(page.headers().get_all("vary").iter().any(|value| value == "accept"));
        assert_eq!(page.text().await.unwrap(), include_str!("../../../../web/index.html"));
    }
    for accept in ["*/*", "application/json"] {
        let told: Value = get(&server, "/", ("accept", accept)).await.json().await.unwrap();
        assert_eq!(told["base_path"], "/v1");
    }
    // What the page asks for needs the key.
    assert_eq!(error(server.get("/v1/models").await).await.0, 401);
}

/// Every file that the page names is there, with the type without which a browser would not run it.
#[tokio::test]
async fn the_pages_files_are_served_without_a_key() {
    let server = guarded().await;
    let page = get(&server, "/", ("accept", BROWSER)).await.text().await.unwrap();
    let named: Vec<&str> = page.split('"').filter(|text| text.starts_with("web/")).collect();
    assert!(named.len() >= 3, "{named:?}");
    for name in named {
        let expected = match name.rsplit_once('.').unwrap().1 {
            "js" => "text/javascript; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            _ => "image/svg+xml",
        };
        // Both of a page at `/` and of one at `/v1/`.
        for base in ["/", "/v1/"] {
            let file = server.get(&format!("{base}{name}")).await;
            assert_eq!((file.status().as_u16(), header(&file, "content-type")), (200, expected), "{name}");
        }
    }
    for missing in ["/web/nothing.js", "/web/..%2fCargo.toml", "/web/%ff", "/web/"] {
        let (status, code, ..) = error(server.get(missing).await).await;
        assert_eq!((status, code.as_str()), (404, "not_found"), "{missing}");
    }
}

/// Nothing is loaded from elsewhere, no script or style stands in the page, and no text becomes an element.
#[tokio::test]
async fn the_page_may_ask_its_own_server_alone() {
    let server = guarded().await;
    for (path, accept) in [("/", BROWSER), ("/web/main.js", "*/*")] {
        let answer = get(&server, path, ("accept", accept)).await;
        let policy = header(&answer, "content-security-policy").to_owned();
        for directive in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        ] {
            assert!(policy.split(';').any(|known| known.trim() == directive), "{directive}: {policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains("http") && !policy.contains('*'), "{policy}");
        assert_eq!(header(&answer, "x-content-type-options"), "nosniff");
    }
}

#[tokio::test]
async fn a_browser_that_has_a_file_is_not_sent_it_again() {
    let server = guarded().await;
    for (path, accept) in [("/", BROWSER), ("/web/main.js", "*/*")] {
        let first = get(&server, path, ("accept", accept)).await;
        assert_eq!(header(&first, "cache-control"), "no-cache");
        let tag = header(&first, "etag").to_owned();
        for known in [tag.clone(), format!("\"other\", W/{tag}")] {
            let request = server.client.get(format!("{}{path}", server.url)).header("accept", accept);
            let again = request.header("if-none-match", known).send().await.unwrap();
            assert_eq!((again.status().as_u16(), header(&again, "etag")), (304, tag.as_str()));
            assert_eq!(again.bytes().await.unwrap().len(), 0);
        }
        let changed = get(&server, path, ("if-none-match", "\"other\"")).await;
        assert_eq!(changed.status(), 200);
    }
}
