//! Prints replies and events. Every frame is taken apart completely: bytes that are missing or
//! left over show.

use anyhow::{Result, bail, ensure};

use super::super::args::shown;
use super::jute::Fields;
use super::names::{Names, error_name};

/// What the body of a reply is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// No body.
    Nothing,
    /// A path.
    Path,
    /// A path and a Stat.
    PathStat,
    /// A Stat.
    Stat,
    /// Data and a Stat.
    Data,
    /// Names of children, in any order.
    Children,
    /// Names of children, in any order, and a Stat.
    ChildrenStat,
    /// An access list and a Stat.
    Access,
    /// An access list in any order, and a Stat.
    AccessInAnyOrder,
    /// A number.
    Number,
    /// Identities, in any order.
    Identities,
    /// A token.
    Token,
    /// Results, one for each step.
    Steps,
    /// Not known: printed as bytes.
    Unknown,
}

/// The body of a reply without an error.
pub fn body(names: &mut Names, shape: Shape, bytes: &[u8]) -> String {
    let mut fields = Fields(bytes);
    let text = match shape {
        // Nothing is known of it, so nothing can be left over.
        Shape::Unknown => return shown(bytes),
        shape => read(names, shape, &mut fields),
    };
    match text {
        Err(error) => format!("undecodable ({error:#}): {}", bytes.escape_ascii()),
        Ok(text) if fields.0.is_empty() => text,
        Ok(text) => format!("{text} left over: {}", shown(fields.0)),
    }
}

fn read(names: &mut Names, shape: Shape, fields: &mut Fields<'_>) -> Result<String> {
    Ok(match shape {
        Shape::Nothing | Shape::Unknown => "ok".to_owned(),
        Shape::Path => fields.string()?,
        Shape::PathStat => format!("{} {}", fields.string()?, stat(names, fields)?),
        Shape::Stat => stat(names, fields)?,
        Shape::Data => format!("{} {}", data(fields)?, stat(names, fields)?),
        Shape::Children => children(fields)?,
        Shape::ChildrenStat => format!("{} {}", children(fields)?, stat(names, fields)?),
        Shape::Access => format!(
            "{} {}",
            fields.list(access)?.join(","),
            stat(names, fields)?
        ),
        Shape::AccessInAnyOrder => {
            let mut entries = fields.list(access)?;
            entries.sort_unstable();
            format!("{} {}", entries.join(","), stat(names, fields)?)
        }
        Shape::Number => fields.int()?.to_string(),
        Shape::Identities => {
            let mut identities = fields.list(|fields| {
                let scheme = fields.string()?;
                Ok(format!("{scheme}:{}", fields.string()?))
            })?;
            identities.sort_unstable();
            identities.join(" ")
        }
        Shape::Token => data(fields)?,
        Shape::Steps => steps(names, fields)?,
    })
}

fn data(fields: &mut Fields<'_>) -> Result<String> {
    Ok(fields.buffer()?.map_or_else(|| "null".to_owned(), shown))
}

fn children(fields: &mut Fields<'_>) -> Result<String> {
    let mut children = fields.list(Fields::string)?;
    children.sort_unstable();
    Ok(format!("[{}]", children.join(" ")))
}

fn access(fields: &mut Fields<'_>) -> Result<String> {
    let bits = fields.int()?;
    let letters: String = [(1, 'r'), (2, 'w'), (4, 'c'), (8, 'd'), (16, 'a')]
        .into_iter()
        .filter(|(bit, _)| bits & bit != 0)
        .map(|(_, letter)| letter)
        .collect();
    let beyond = if bits & !31 == 0 {
        String::new()
    } else {
        format!("({bits})")
    };
    let scheme = fields.string()?;
    Ok(format!("{scheme}:{}:{letters}{beyond}", fields.string()?))
}

/// Every field of a Stat; its times only when they cannot be right.
fn stat(names: &mut Names, fields: &mut Fields<'_>) -> Result<String> {
    let (created, changed) = (fields.long()?, fields.long()?);
    let (ctime, mtime) = (fields.long()?, fields.long()?);
    let (version, cversion, aversion) = (fields.int()?, fields.int()?, fields.int()?);
    let owner = fields.long()?;
    let (length, children) = (fields.int()?, fields.int()?);
    let pzxid = fields.long()?;
    let times = names.time("ctime", created, ctime) + &names.time("mtime", changed, mtime);
    let czxid = names.zxid(created);
    let mzxid = names.zxid(changed);
    let pzxid = names.zxid(pzxid);
    let owner = names.session(owner);
    Ok(format!(
        "czxid={czxid} mzxid={mzxid} pzxid={pzxid}{times} version={version} cversion={cversion} \
         aversion={aversion} owner={owner} length={length} children={children}"
    ))
}

/// The results of a multi or multiRead, each on its own line.
fn steps(names: &mut Names, fields: &mut Fields<'_>) -> Result<String> {
    let mut text = String::new();
    loop {
        let (kind, done, code) = (fields.int()?, fields.flag()?, fields.int()?);
        if done {
            ensure!((kind, code) == (-1, -1), "the end is marked {kind} {code}");
            return Ok(text);
        }
        text += "\n    ";
        let shape = match kind {
            -1 => {
                let own = fields.int()?;
                text += &error(own);
                if own != code {
                    text += &format!(" (header: {code})");
                }
                continue;
            }
            1 => Shape::Path,
            2 | 13 => Shape::Nothing,
            4 => Shape::Data,
            5 => Shape::Stat,
            8 => Shape::Children,
            15 => Shape::PathStat,
            other => bail!("a step of type {other}"),
        };
        ensure!(code == 0, "a step of type {kind} with the code {code}");
        text += &format!("type {kind}: {}", read(names, shape, fields)?);
    }
}

/// An error code with its name.
pub fn error(code: i32) -> String {
    match error_name(code) {
        Ok(name) => format!("error {name}"),
        // A step that went well before another failed says so.
        Err(_) if code == 0 => "undone".to_owned(),
        Err(_) => format!("error {code}"),
    }
}

/// A watcher's event.
pub fn event(bytes: &[u8]) -> String {
    let mut fields = Fields(bytes);
    let mut read = || -> Result<String> {
        let (kind, state) = (fields.int()?, fields.int()?);
        let kind = match kind {
            1 => "created".to_owned(),
            2 => "deleted".to_owned(),
            3 => "changed".to_owned(),
            4 => "children".to_owned(),
            other => format!("type={other}"),
        };
        let state = if state == 3 {
            String::new()
        } else {
            format!(" state={state}")
        };
        let path = fields.string()?;
        ensure!(fields.0.is_empty(), "left over: {}", shown(fields.0));
        Ok(format!("event {kind} {path}{state}"))
    };
    read()
        .unwrap_or_else(|error| format!("undecodable event ({error:#}): {}", bytes.escape_ascii()))
}
