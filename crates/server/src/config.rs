//! What the HTTP surface can be told.
use std::time::Duration;

#[derive(Debug, Clone)]
pub struct ServerConfig {
    pub host: String,
    /// 0 takes a free one.
    pub port: u16,
    /// Asked for as `Authorization: Bearer`; `None` leaves the server open to whoever reaches it.
    pub api_key: Option<String>,
    /// Names that requests may use; the first is the one in answers. Empty: the model's own name.
    pub served_model_name: Vec<String>,
    /// A larger body is answered with 413.
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
