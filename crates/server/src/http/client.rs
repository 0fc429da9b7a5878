//! The client at the other end of a connection: what it sends and takes, how long it may take for it, and whether it is
//! still there.
//!
//! A client that closes its sending side looks like one that has left: both send the same packet. A client that left
//! answers the next bytes that it is sent with a reset, so bytes are sent that every client skips: the interim answer
//! `100 Continue` before an answer, a comment in an event stream.
use crate::http::state::Stage;
use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Response, Version};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use socket2::SockRef;
use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, ErrorKind, IoSlice, Read};
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

/// Bytes that are read after a request that is being answered. Reading them is how the end after them is found.
const MAX_AHEAD: usize = 64 << 10;
/// How often a connection of which nothing can be read is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// When a client that may have left is first sent something, and the longest time from then to the next.
const PROBE_AFTER: Duration = Duration::from_millis(500);
const PROBE_AT_LEAST_EVERY: Duration = Duration::from_secs(10);
/// How long a client that can be sent nothing before its answer is believed to be there: one of HTTP/1.0.
const BELIEVE_FOR: Duration = Duration::from_secs(30);
/// How long a client may take nothing of its answer once the server is shutting down.
const STALLED_AT_END: Duration = Duration::from_secs(5);

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
const COMMENT: &[u8] = b": keep-alive\n\n";

/// How long clients may take.
#[derive(Debug, Clone, Copy)]
pub struct ClientLimits {
    /// To begin a request.
    pub keep_alive: Duration,
    /// To send a request's head once they have begun.
    pub read: Duration,
    /// To take any byte of an answer.
    pub write: Duration,
}

/// Why a connection is ended before HTTP ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Left,
    SendsNothing,
    TakesNothing,
    ServerEnds,
}

/// One client. The socket is read and written through [`ClientIo`] and watched by [`Watch`], in one task.
pub struct Client {
    stream: TcpStream,
    limits: ClientLimits,
    state: Mutex<ClientState>,
}

struct ClientState {
    stage: Stage,
    exchange: Exchange,
    /// Bytes that are read, and that hyper has not asked for yet.
    ahead: VecDeque<u8>,
    /// The last read found nothing, so hyper itself is waiting for bytes.
    hyper_reads: bool,
    /// The client has closed its sending side, or left.
    sends_no_more: bool,
    /// Bytes were written since hyper has last written all it has.
    unflushed: bool,
    /// Since when the client has taken no bytes while there are some.
    stalled: Option<Instant>,
    /// `None` while reading can still tell whether the client is there.
    probes: Option<Probes>,
    comment_due: bool,
}

#[derive(Clone, Copy)]
enum Exchange {
    /// The client has no request in work since `since`. `begun` tells whether a part of a request's head has come.
    Waiting { since: Instant, begun: bool },
    /// The answer's head is not known yet. `interim`: the client understands interim answers.
    Answering { interim: bool },
    /// The answer is being sent. `events`: as an event stream.
    Sending { events: bool },
}

struct Probes {
    since: Instant,
    look_at: Instant,
    probe_at: Instant,
    pause: Duration,
}

impl Client {
    pub fn new(stream: TcpStream, limits: ClientLimits) -> Arc<Self> {
        let state = ClientState {
            stage: Stage::Serving,
            exchange: Exchange::Waiting { since: Instant::now(), begun: false },
            ahead: VecDeque::new(),
            hyper_reads: false,
            sends_no_more: false,
            unflushed: false,
            stalled: None,
            probes: None,
            comment_due: false,
        };
        Arc::new(Client { stream, limits, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, ClientState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since when the client has had no request in work; `None` while it has one.
    pub fn waiting_since(&self) -> Option<Instant> {
        let state = self.state();
        match state.exchange {
            Exchange::Waiting { since, .. } if !state.unflushed => Some(since),
            _ => None,
        }
    }

    /// Tells how far the server's shutdown is.
    pub fn set_stage(&self, stage: Stage) {
        self.state().stage = stage;
    }

    /// A request's head has come.
    pub fn request_came(&self, version: Version) {
        let mut state = self.state();
        state.exchange = Exchange::Answering { interim: version >= Version::HTTP_11 };
        state.probes = None;
    }

    /// The answer to the request that came last.
    pub fn answer(self: Arc<Self>, response: Response<Body>) -> Response<AnswerBody> {
        let kind = response.headers().get(CONTENT_TYPE);
        let events = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        self.state().exchange = Exchange::Sending { events };
        response.map(|body| AnswerBody { body, client: self })
    }

    /// Looks at the client while the connection waits. Returns when to look again, if something can end without an
    /// event of the socket.
    fn look(&self, cx: &mut Context<'_>, now: Instant) -> Result<Option<Instant>, End> {
        let state = &mut *self.state();
        let mut next = None;
        let mut until = |instant: Instant, end: End| {
            next = Some(next.map_or(instant, |next: Instant| next.min(instant)));
            if now < instant { Ok(()) } else { Err(end) }
        };
        if let Some(since) = state.stalled {
            let closing = state.stage != Stage::Serving;
            until(
                since + if closing { STALLED_AT_END.min(self.limits.write) } else { self.limits.write },
                End::TakesNothing,
            )?;
        }
        match state.exchange {
            _ if state.unflushed => {}
            Exchange::Waiting { .. } if state.stage == Stage::Ending => return Err(End::ServerEnds),
            Exchange::Waiting { since, begun } => {
                until(since + if begun { self.limits.read } else { self.limits.keep_alive }, End::SendsNothing)?;
            }
            _ => {}
        }
        if !state.hyper_reads && !matches!(state.exchange, Exchange::Waiting { .. }) {
            let look_at = self.read_ahead(state, cx, now)?;
            next = next.into_iter().chain(look_at).min();
        }
        Ok(next)
    }

    /// Reads what the client sends after its request, to the end if it is near, and then finds out whether the client
    /// has left.
    fn read_ahead(&self, state: &mut ClientState, cx: &mut Context<'_>, now: Instant) -> Result<Option<Instant>, End> {
        while !state.sends_no_more && state.ahead.len() < MAX_AHEAD {
            match self.stream.poll_read_ready(cx) {
                Poll::Pending => return Ok(None),
                Poll::Ready(ready) => ready.map_err(|_| End::Left)?,
            }
            let mut bytes = [0; 4096];
            match self.stream.try_read(&mut bytes) {
                Ok(0) => state.sends_no_more = true,
                Ok(n) => state.ahead.extend(&bytes[..n]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return Err(End::Left),
            }
        }
        let probes = state.probes.get_or_insert_with(|| Probes {
            since: now,
            look_at: now + LOOK_EVERY,
            probe_at: now + PROBE_AFTER,
            pause: PROBE_AFTER,
        });
        if now < probes.look_at {
            return Ok(Some(probes.look_at));
        }
        probes.look_at = now + LOOK_EVERY;
        let look_at = probes.look_at;
        if !matches!(self.stream.take_error(), Ok(None)) {
            return Err(End::Left);
        }
        if now >= probes.probe_at {
            probes.pause = (probes.pause * 2).min(PROBE_AT_LEAST_EVERY);
            probes.probe_at = now + probes.pause;
            let believed = now < probes.since + BELIEVE_FOR;
            self.probe(state, cx, believed)?;
        }
        Ok(Some(look_at))
    }

    /// Sends the client something that it skips, if it is there.
    fn probe(&self, state: &mut ClientState, cx: &Context<'_>, believed: bool) -> Result<(), End> {
        match state.exchange {
            // Bytes of the answer before must not be cut in two.
            Exchange::Answering { interim: true } if !state.unflushed => match self.stream.try_write(CONTINUE) {
                Ok(n) if n == CONTINUE.len() => Ok(()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
                _ => Err(End::Left),
            },
            Exchange::Answering { interim: false } if !believed => Err(End::Left),
            Exchange::Sending { events: true } => {
                state.comment_due = true;
                // The body is asked for it when the connection is polled again.
                cx.waker().wake_by_ref();
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Resolves when the connection is to be ended. It must be polled whenever the connection is, after it.
pub struct Watch {
    client: Arc<Client>,
    timer: Pin<Box<Sleep>>,
}

impl Watch {
    pub fn new(client: Arc<Client>) -> Self {
        Watch { client, timer: Box::pin(sleep_until(Instant::now())) }
    }
}

impl Future for Watch {
    type Output = End;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End> {
        let Watch { client, timer } = &mut *self;
        loop {
            match client.look(cx, Instant::now()) {
                Err(end) => return Poll::Ready(end),
                Ok(None) => return Poll::Pending,
                Ok(Some(next)) => {
                    if timer.deadline() != next {
                        timer.as_mut().reset(next);
                    }
                    ready!(timer.as_mut().poll(cx));
                }
            }
        }
    }
}

/// An answer's body, which tells the client's state of its end and gives the comments that are due.
pub struct AnswerBody {
    body: Body,
    client: Arc<Client>,
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if frame.is_pending() && std::mem::take(&mut self.client.state().comment_due) {
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(COMMENT)))));
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        let mut state = self.client.state();
        state.exchange = Exchange::Waiting { since: Instant::now(), begun: false };
        state.comment_due = false;
    }
}

/// The socket as hyper reads and writes it.
pub struct ClientIo(pub Arc<Client>);

impl ClientIo {
    fn write(&self, cx: &mut Context<'_>, write: impl Fn(&TcpStream) -> io::Result<usize>) -> Poll<io::Result<usize>> {
        let mut state = self.0.state();
        loop {
            let Poll::Ready(ready) = self.0.stream.poll_write_ready(cx) else {
                state.stalled.get_or_insert_with(Instant::now);
                return Poll::Pending;
            };
            ready?;
            match write(&self.0.stream) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                written => {
                    state.unflushed = true;
                    state.stalled = None;
                    return Poll::Ready(written);
                }
            }
        }
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let state = &mut *self.0.state();
        let before = buf.filled().len();
        if !state.ahead.is_empty() {
            let n = state.ahead.read(buf.initialize_unfilled())?;
            buf.advance(n);
        } else {
            while !state.sends_no_more && buf.filled().len() == before {
                let Poll::Ready(ready) = self.0.stream.poll_read_ready(cx) else {
                    state.hyper_reads = true;
                    return Poll::Pending;
                };
                ready?;
                match self.0.stream.try_read(buf.initialize_unfilled()) {
                    Ok(0) => state.sends_no_more = true,
                    Ok(n) => buf.advance(n),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
        }
        state.hyper_reads = false;
        if let Exchange::Waiting { since, begun } = &mut state.exchange
            && !*begun
            && buf.filled().len() > before
        {
            (*since, *begun) = (Instant::now(), true);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.write(cx, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, |stream| stream.try_write_vectored(parts))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Hyper flushes once it has written all it has.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.state().unflushed = false;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(&self.0.stream).shutdown(Shutdown::Write))
    }
}
