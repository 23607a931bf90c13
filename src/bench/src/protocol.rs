//! What a protocol must bring along to be measured: how it travels ([`Wire`]), what is asked of a
//! server besides the load, and which connections a workload consists of ([`Protocol`]).

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;

use crate::connection::{Connection, Session};
use crate::fan_out::FanOut;
use crate::generator::{MemberSpec, Plan};
use crate::keys::KeySpace;
use crate::load::Slice;

/// One client connection without its socket: bytes in, events out, and the other way round. It
/// must not know what time it is.
pub trait Wire {
    /// What the server did.
    type Event: Debug;

    /// The next event among the bytes that came.
    fn next_event(&mut self) -> anyhow::Result<Option<Self::Event>>;
    /// Where bytes that came belong.
    fn inbound_mut(&mut self) -> &mut BytesMut;
    /// What is to be written.
    fn outbound_mut(&mut self) -> &mut BytesMut;
    /// Whether the server takes one more request now.
    fn takes_requests(&self) -> bool;
    /// Says what must be said to keep the connection while nothing is asked; answers when to look
    /// again, if ever.
    fn keep(&mut self, now: Instant) -> Option<Instant>;
    /// Says farewell. Whether the server then ends the connection, which is worth awaiting.
    fn part(&mut self) -> bool;
}

/// What can be put under load.
pub trait Workload: Copy + Debug + Send + 'static {
    /// Whether it needs the key space to be filled.
    fn needs_keys(&self) -> bool;
    /// Whether the server's revision moves by one with each acknowledged write, and by nothing
    /// else.
    fn is_accounted(&self) -> bool;
}

/// What was found out about a server before it is measured.
pub struct Met<P> {
    /// How it is spoken to from now on.
    pub protocol: P,
    /// What it says its version is.
    pub version: String,
    /// The members that lead.
    pub leaders: Vec<String>,
}

/// A protocol, with what it takes to be let in.
pub trait Protocol: Clone + Debug + Send + Sync + 'static {
    /// What its servers can be asked.
    type Workload: Workload;
    /// What a connection does in a workload.
    type Role: Clone + Send;
    /// What a server is told about who asks.
    type Credentials;
    /// Where its servers listen when nobody says so.
    const ENDPOINT: &str;

    /// Looks at every member (`host:port`).
    async fn meet(members: &[String], credentials: &Self::Credentials)
    -> anyhow::Result<Met<Self>>;
    /// The revision that every write acknowledged by `members` is at or below.
    async fn revision(&self, members: &[String]) -> anyhow::Result<i64>;
    /// How many keys of the key space there are.
    async fn count(&self, member: &str, keys: &KeySpace) -> anyhow::Result<u64>;
    /// Makes what the key space stands on.
    async fn prepare(&self, member: &str, keys: &KeySpace) -> anyhow::Result<()>;
    /// The workload that makes every key once, as many with a request as it likes.
    fn filling() -> Self::Workload;
    /// The connections of a plan.
    fn members(plan: &Plan<Self>) -> Vec<MemberSpec<Self::Role>>;
    /// Makes one of them, ready for its first slice. `rest` is a slice without load.
    async fn connect(
        plan: &Plan<Self>,
        spec: &MemberSpec<Self::Role>,
        shared: &Arc<FanOut>,
        rest: Slice,
    ) -> anyhow::Result<Box<dyn Member>>;
}

/// What a member's work returns.
pub type Working<'a, T> = Pin<Box<dyn Future<Output = anyhow::Result<T>> + 'a>>;

/// A part of a load that runs by itself: in general a connection and what drives it.
pub trait Member {
    /// Begins a slice; the one before must be done.
    fn begin(&mut self, slice: Slice);
    /// Runs the slice to its end.
    fn run(&mut self) -> Working<'_, ()>;
    /// Keeps the connection between slices.
    fn keep(&mut self) -> Working<'_, ()>;
    /// Ends the connection in order.
    fn part(self: Box<Self>) -> Working<'static, ()>;
}

/// A session that works slice by slice.
pub trait Sliced {
    /// Begins a slice; the one before must be done.
    fn begin(&mut self, slice: Slice);
}

/// A connection and the session that drives it.
pub struct Driven<W, S> {
    connection: Connection<W>,
    session: S,
}

impl<W, S> Driven<W, S>
where
    W: Wire + 'static,
    S: Session<W> + Sliced + 'static,
{
    /// A connection that `session` drives from now on.
    pub fn by(session: S, connection: Connection<W>) -> Box<dyn Member> {
        Box::new(Self {
            connection,
            session,
        })
    }
}

impl<W, S> Member for Driven<W, S>
where
    W: Wire + 'static,
    S: Session<W> + Sliced + 'static,
{
    fn begin(&mut self, slice: Slice) {
        self.session.begin(slice);
    }

    fn run(&mut self) -> Working<'_, ()> {
        Box::pin(self.connection.drive(&mut self.session))
    }

    fn keep(&mut self) -> Working<'_, ()> {
        Box::pin(self.connection.keep())
    }

    fn part(self: Box<Self>) -> Working<'static, ()> {
        Box::pin(self.connection.part())
    }
}
