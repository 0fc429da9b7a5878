//! What a request's endpoint did not read of its body. Most clients read the answer only after they have sent
//! everything, and see a broken connection if they cannot: so the rest is read and discarded before the answer, within
//! bounds.
use crate::http::state::Stage;
use axum::body::{Body, Bytes};
use axum::http::header::EXPECT;
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// The rest is read for this long at most.
const DISCARD_TIME: Duration = Duration::from_secs(10);

/// Where a body is left that was not read to its end.
#[derive(Clone, Default)]
pub struct Unread(Arc<Mutex<Option<Incoming>>>);

impl Unread {
    /// Splits a request from what will not have been read of its body. Nothing is kept of a client that asks before it
    /// sends its body (`Expect: 100-continue`) and is not told to, since it reads the answer first.
    pub fn watch(request: Request<Incoming>) -> (Request<Body>, Unread) {
        let unread = Unread::default();
        let (sends, place) = (!request.headers().contains_key(EXPECT), unread.clone());
        (request.map(|body| Body::new(WatchedBody { body: Some(body), sends, place })), unread)
    }

    /// Reads the rest, up to `limit` bytes, unless the client was too slow already or the server ends.
    pub async fn discard(self, answer: StatusCode, limit: usize, mut stages: watch::Receiver<Stage>) {
        let rest = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut rest) = rest.filter(|_| answer != StatusCode::REQUEST_TIMEOUT) else { return };
        let read_all = async {
            let mut read = 0;
            while let Some(Ok(frame)) = rest.frame().await {
                read += frame.data_ref().map_or(0, Bytes::len);
                if read > limit {
                    break;
                }
            }
        };
        // However the reading ends, the answer follows.
        tokio::select! {
            _ = timeout(DISCARD_TIME, read_all) => {}
            _ = stages.wait_for(|stage| *stage == Stage::Ending) => {}
        }
    }
}

/// A body that goes to `place` if it is dropped before its end.
struct WatchedBody {
    /// `None` at the end.
    body: Option<Incoming>,
    /// The client sends it, whatever it is told.
    sends: bool,
    place: Unread,
}

impl HttpBody for WatchedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        // This tells a client that asked.
        self.sends = true;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for WatchedBody {
    fn drop(&mut self) {
        if let Some(body) = self.body.take().filter(|body| self.sends && !body.is_end_stream()) {
            *self.place.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
        }
    }
}
