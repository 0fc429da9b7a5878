//! HTTP clients, for the hub and for whatever else a program asks.
use std::net::IpAddr;

/// A builder of HTTP clients for which TLS is set up. Every HTTP client of a program with this crate must be made by
/// it, because `reqwest` panics where TLS is not set up.
pub fn http() -> reqwest::ClientBuilder {
    // An error means that an earlier call has set it up.
    #[cfg(not(target_os = "macos"))]
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
}

/// [`http()`] for what lies at `url`: no proxy stands before this machine itself, whatever the environment says.
pub fn http_for(url: &str) -> reqwest::ClientBuilder {
    if is_this_machine(url) { http().no_proxy() } else { http() }
}

/// Whether an address leads to this machine by a loopback address or name.
fn is_this_machine(url: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(url) else { return false };
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    match host.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback() || address.is_unspecified(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::is_this_machine;

    #[test]
    fn loopback_addresses_are_this_machine() {
        for url in [
            "http://127.0.0.1:8000",
            "http://127.9.9.9",
            "http://localhost:8000/v1",
            "http://LOCALHOST",
            "http://x.localhost",
            "http://[::1]:8000",
            "http://[::ffff:127.0.0.1]",
            "http://0.0.0.0:8000",
        ] {
            assert!(is_this_machine(url), "{url}");
        }
        for url in ["https://huggingface.co", "http://192.168.1.2", "http://localhost.example.com", "localhost", ""] {
            assert!(!is_this_machine(url), "{url}");
        }
    }
}
