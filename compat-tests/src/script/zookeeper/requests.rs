//! Builds requests from the words of a command.
//!
//! ```text
//! create PATH [DATA] [ephemeral] [sequential] [flags=N]     also create2, container, create-ttl
//! delete PATH [version=N]                set PATH [DATA] [version=N]
//! get PATH [watch]                       exists, children, children2 likewise
//! get-acl PATH [sorted]                  set-acl PATH acl=... [version=N]
//! check PATH version=N                   sync PATH
//! add-watch PATH [recursive] [mode=N]    check-watches, remove-watches PATH TYPE
//! count PATH                             ephemerals PREFIX
//! set-watches zxid=z2 [data=/a,/b] [exist=] [child=] [persistent=] [recursive=]
//! who-am-i, ping, close-session          auth SCHEME ID, sasl TOKEN
//! delete-container PATH, config          reconfig [joining=] [leaving=] [members=] [from=N]
//! multi "create /a x" "check /b version=1" ...      multi-read "get /a" "children /b" ...
//! op TYPE BYTES [xid=N]                  any bytes as a request
//! ```
//!
//! Data is `null`, bytes as they are written, or `size=N` times `x`. An access list is
//! `world:anyone:cdrwa,digest:name:hash:r`, `none` for an empty one or `null` for none at all.

use anyhow::{Context, Result};

use super::super::args::{Args, parse_number, to_bytes};
use super::jute::Record;
use super::names::Names;
use super::print::Shape;

/// The xid of a request whose connection counts on.
pub const NEXT_XID: i32 = 0;
/// The xid of a ping.
const PING_XID: i32 = -2;
/// The xid of an authentication.
const AUTH_XID: i32 = -4;
/// The xid of set-watches.
const SET_WATCHES_XID: i32 = -8;

/// One request.
#[derive(Debug)]
pub struct Request {
    /// Its number, or [`NEXT_XID`].
    pub xid: i32,
    /// What it asks for.
    pub opcode: i32,
    /// Its record.
    pub body: Vec<u8>,
    /// What the reply to it will be.
    pub shape: Shape,
    /// Whether it changes the tree when it goes well: its reply then carries the change's zxid.
    pub changes: bool,
}

impl Request {
    fn new(opcode: i32, shape: Shape, body: Record) -> Self {
        let changes = [1, 2, 5, 7, 15, 19, 21].contains(&opcode);
        let body = body.into_bytes();
        Self {
            xid: NEXT_XID,
            opcode,
            body,
            shape,
            changes,
        }
    }

    fn with_xid(self, xid: i32) -> Self {
        Self { xid, ..self }
    }
}

/// The request that `name` and its words stand for; none, and no word is taken, where there is no
/// such request.
pub fn request(names: &Names, name: &str, args: &mut Args) -> Result<Option<Request>> {
    let record = Record::default();
    Ok(Some(match name {
        "create" | "create2" | "container" | "create-ttl" => create(name, args)?,
        "delete" => {
            let body = record.string(&args.word()?).int(version(args)?);
            Request::new(2, Shape::Nothing, body)
        }
        "set" => {
            let (path, version) = (args.word()?, version(args)?);
            let data = data(args)?;
            let body = record.string(&path).buffer(data.as_deref()).int(version);
            Request::new(5, Shape::Stat, body)
        }
        "exists" => Request::new(3, Shape::Stat, read(args)?),
        "get" => Request::new(4, Shape::Data, read(args)?),
        "children" => Request::new(8, Shape::Children, read(args)?),
        "children2" => Request::new(12, Shape::ChildrenStat, read(args)?),
        "get-acl" => {
            let shape = if args.flag("sorted") {
                Shape::AccessInAnyOrder
            } else {
                Shape::Access
            };
            Request::new(6, shape, record.string(&args.word()?))
        }
        "set-acl" => {
            let body = access(record.string(&args.word()?), args)?.int(version(args)?);
            Request::new(7, Shape::Stat, body)
        }
        "check" => {
            let body = record.string(&args.word()?).int(version(args)?);
            Request::new(13, Shape::Nothing, body)
        }
        "sync" => Request::new(9, Shape::Path, record.string(&args.word()?)),
        "add-watch" => add_watch(args)?,
        "check-watches" | "remove-watches" => {
            let body = record
                .string(&args.word()?)
                .int(watcher_type(&args.word()?)?);
            let opcode = if name == "check-watches" { 17 } else { 18 };
            Request::new(opcode, Shape::Nothing, body)
        }
        "count" => Request::new(104, Shape::Number, record.string(&args.word()?)),
        "ephemerals" => Request::new(103, Shape::Children, record.string(&args.word()?)),
        "set-watches" | "set-watches-1" => set_watches(names, name, args)?,
        "who-am-i" => Request::new(107, Shape::Identities, record),
        "ping" => Request::new(11, Shape::Nothing, record).with_xid(PING_XID),
        "close-session" => Request::new(-11, Shape::Nothing, record),
        "auth" => {
            let body = record.int(0).string(&args.word()?);
            let body = body.buffer(Some(&to_bytes(&args.word()?)?));
            Request::new(100, Shape::Nothing, body).with_xid(AUTH_XID)
        }
        "sasl" => sasl(&args.bytes()?),
        "delete-container" => Request::new(20, Shape::Nothing, record.string(&args.word()?)),
        "config" => {
            let body = record.string("/zookeeper/config").flag(false);
            Request::new(4, Shape::Data, body)
        }
        "reconfig" => reconfig(names, args)?,
        "multi" => multi(names, 14, args)?,
        "multi-read" => multi(names, 22, args)?,
        "op" => op(args)?,
        _ => return Ok(None),
    }))
}

/// A step of SASL.
pub fn sasl(token: &[u8]) -> Request {
    Request::new(102, Shape::Token, Record::default().buffer(Some(token)))
}

fn create(name: &str, args: &mut Args) -> Result<Request> {
    let ephemeral = i32::from(args.flag("ephemeral"));
    let sequential = i32::from(args.flag("sequential")) * 2;
    let (opcode, shape, kind) = match name {
        "create" => (1, Shape::Path, ephemeral + sequential),
        "create2" => (15, Shape::PathStat, ephemeral + sequential),
        "container" => (19, Shape::PathStat, 4),
        _ => (21, Shape::PathStat, 5 + i32::from(sequential > 0)),
    };
    let kind = args
        .value("flags")
        .map_or(Ok(kind), |flags| flags.parse())?;
    let ttl = args.value("ttl").map_or(Ok(0), |ttl| parse_number(&ttl))?;
    let path = args.word()?;
    let data = data(args)?;
    let body = Record::default().string(&path).buffer(data.as_deref());
    let body = if args.has("acl") {
        access(body, args)?
    } else {
        entry(body.length(1), "world:anyone:cdrwa")?
    };
    let body = body.int(kind);
    let body = if opcode == 21 { body.long(ttl) } else { body };
    Ok(Request::new(opcode, shape, body))
}

/// `version=`, any when it is not said.
fn version(args: &mut Args) -> Result<i32> {
    Ok(args
        .value("version")
        .map_or(Ok(-1), |version| version.parse())?)
}

/// The next word, or `size=` times `x`, or nothing in no bytes.
fn data(args: &mut Args) -> Result<Option<Vec<u8>>> {
    if let Some(size) = args.value("size") {
        return Ok(Some(vec![b'x'; size.parse()?]));
    }
    match args.optional_word() {
        None => Ok(Some(Vec::new())),
        Some(word) if word == "null" => Ok(None),
        Some(word) => to_bytes(&word).map(Some),
    }
}

fn read(args: &mut Args) -> Result<Record> {
    let watch = args.flag("watch");
    Ok(Record::default().string(&args.word()?).flag(watch))
}

fn watcher_type(text: &str) -> Result<i32> {
    Ok(match text {
        "children" => 1,
        "data" => 2,
        "any" => 3,
        "persistent" => 4,
        "recursive" => 5,
        number => number.parse()?,
    })
}

fn access(record: Record, args: &mut Args) -> Result<Record> {
    let list = args.value("acl").context("acl= is missing")?;
    match list.as_str() {
        "null" => Ok(record.int(-1)),
        "none" => Ok(record.int(0)),
        list => {
            let entries: Vec<_> = list.split(',').collect();
            let record = record.length(entries.len());
            entries.into_iter().try_fold(record, entry)
        }
    }
}

/// `scheme:id:letters`; the id may hold colons.
fn entry(record: Record, text: &str) -> Result<Record> {
    let (scheme, rest) = text.split_once(':').with_context(|| format!("{text:?}"))?;
    let (id, letters) = rest.rsplit_once(':').with_context(|| format!("{text:?}"))?;
    let bits = match letters.parse::<i32>() {
        Ok(bits) => bits,
        Err(_) => letters.chars().try_fold(0, |bits, letter| {
            let at = "rwcda"
                .find(letter)
                .with_context(|| format!("{letter:?}"))?;
            Ok::<_, anyhow::Error>(bits | 1 << at)
        })?,
    };
    Ok(record.int(bits).string(scheme).string(id))
}

fn add_watch(args: &mut Args) -> Result<Request> {
    let mode = i32::from(args.flag("recursive"));
    let mode = args.value("mode").map_or(Ok(mode), |mode| mode.parse())?;
    let body = Record::default().string(&args.word()?).int(mode);
    Ok(Request::new(106, Shape::Number, body))
}

fn set_watches(names: &Names, name: &str, args: &mut Args) -> Result<Request> {
    let zxid = args.value("zxid").context("zxid= is missing")?;
    let mut body = Record::default().long(names.parse_zxid(&zxid)?);
    let mut list = |name: &str| -> Vec<String> {
        let paths = args.value(name).unwrap_or_default();
        paths
            .split(',')
            .filter(|path| !path.is_empty())
            .map(str::to_owned)
            .collect()
    };
    for part in ["data", "exist", "child"] {
        body = body.strings(&list(part));
    }
    let opcode = if name == "set-watches" {
        for part in ["persistent", "recursive"] {
            body = body.strings(&list(part));
        }
        105
    } else {
        101
    };
    Ok(Request::new(opcode, Shape::Nothing, body).with_xid(SET_WATCHES_XID))
}

fn reconfig(names: &Names, args: &mut Args) -> Result<Request> {
    let mut body = Record::default();
    for part in ["joining", "leaving", "members"] {
        let servers = args.value(part).map(|text| names.spell_servers(&text));
        body = body.buffer(servers.as_deref().map(str::as_bytes));
    }
    let from = args
        .value("from")
        .map_or(Ok(-1), |from| parse_number(&from))?;
    Ok(Request::new(16, Shape::Data, body.long(from)))
}

/// Each step's header and record, and the header that ends them.
fn multi(names: &Names, opcode: i32, args: &mut Args) -> Result<Request> {
    let mut body = Record::default();
    let mut changes = false;
    while let Some(step) = args.optional_word() {
        let mut words = Args::from_text(&step);
        let name = words.word()?;
        let step = request(names, &name, &mut words)?
            .with_context(|| format!("no such request: {name}"))?;
        words.finish()?;
        changes |= step.changes;
        body = body.int(step.opcode).flag(false).int(-1).raw(&step.body);
    }
    body = body.int(-1).flag(true).int(-1);
    let request = Request::new(opcode, Shape::Steps, body);
    Ok(Request { changes, ..request })
}

fn op(args: &mut Args) -> Result<Request> {
    let xid = args.value("xid").map_or(Ok(NEXT_XID), |xid| xid.parse())?;
    let opcode = args.word()?.parse()?;
    let body = args
        .optional_word()
        .map_or(Ok(Vec::new()), |word| to_bytes(&word))?;
    let body = Record::default().raw(&body);
    Ok(Request::new(opcode, Shape::Unknown, body).with_xid(xid))
}
