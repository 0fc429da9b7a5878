//! The right to a model's process while a request is answered.
use crate::client::ProcessAddress;
use crate::error::LoadError;
use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// An event of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseEvent {
    /// The request needs the process no longer.
    Released,
    /// The process does not take connections.
    Unreachable,
}

/// The right to a loaded model, which stays so while this lives.
pub struct Lease {
    /// The address of the model's process.
    pub address: Arc<ProcessAddress>,
    /// Called with the lease's events.
    pub on_event: Box<dyn Fn(LeaseEvent) + Send + Sync>,
}

impl Lease {
    /// The body of an answer, which holds the lease until it has been passed on.
    pub fn hold(self, body: Body, name: &str) -> Body {
        Body::new(LeasedBody { body, name: name.to_owned(), _lease: self })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        (self.on_event)(LeaseEvent::Released);
    }
}

struct LeasedBody {
    body: Body,
    name: String,
    _lease: Lease,
}

impl HttpBody for LeasedBody {
    type Data = Bytes;
    type Error = LoadError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, LoadError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        frame.map_err(|error| {
            tracing::debug!(model = self.name, %error, "an answer broke off");
            LoadError::Ended { name: self.name.clone() }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
