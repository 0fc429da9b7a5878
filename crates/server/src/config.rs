//! The settings of the HTTP server.
use std::time::Duration;

/// Everything that the HTTP server can be told. `Default` listens at 127.0.0.1:8000 without an API key.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// The name or address to listen at.
    pub host: String,
    /// The TCP port to listen at; 0 lets the system choose a free one.
    pub port: u16,
    /// The key that clients must send as `Authorization: Bearer KEY`. With `None` the server is open to whoever reaches
    /// it.
    pub api_key: Option<String>,
    /// Names by which requests may ask for the model; answers carry the first one. If it is empty, the model has the
    /// engine's name for it.
    pub served_model_name: Vec<String>,
    /// The largest request body in bytes; a larger one is answered with status 413.
    pub max_body_bytes: usize,
    /// How long accepted requests may go on after a shutdown has begun.
    pub shutdown_limit: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        ServerConfig {
            host: "127.0.0.1".into(),
            port: 8000,
            api_key: None,
            served_model_name: Vec::new(),
            max_body_bytes: 4 << 20,
            shutdown_limit: Duration::from_secs(30),
        }
    }
}
