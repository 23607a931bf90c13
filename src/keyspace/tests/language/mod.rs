//! The small language in which scripts write transactions:
//!
//! ```text
//! if version k = 0; if value [a,c) = x; then put k v lease=7; then get [a,*); else del k prev
//! then put k keep lease=keep; then get k rev=3; then {if created k > 1; then del [a,c)}
//! get [a,*) limit=2 sort=-key modified=3.. created=..4 count
//! ```
//!
//! A span is one key, `[from,before)`, or `[from,*)`.

pub mod auth;
pub mod nodes;

use keyspace::command::{Delete, Filter, Guard, Op, Put, Range, Relation, Sort, SortBy, Test, Txn};
use keyspace::{End, LeaseId, Revision, Span};

type Parsed<T> = Result<T, String>;

/// Parses a transaction: clauses separated by semicolons.
pub fn txn(text: &str) -> Parsed<Txn> {
    let mut txn = Txn::default();
    for clause in clauses(text) {
        let (word, rest) = clause.split_once(' ').unwrap_or((clause, ""));
        match word {
            "if" => txn.guards.push(guard(rest)?),
            "then" => txn.then.push(op(rest)?),
            "else" => txn.otherwise.push(op(rest)?),
            other => return Err(format!("not a clause: {other}")),
        }
    }
    Ok(txn)
}

/// Splits at the semicolons outside braces.
fn clauses(text: &str) -> Vec<&str> {
    let mut depth = 0;
    let parts = text.split(|c| {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        c == ';' && depth == 0
    });
    parts
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .collect()
}

fn guard(text: &str) -> Parsed<Guard> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [test, keys, relation, rest @ ..] = &words[..] else {
        return Err(format!("not a guard: {text}"));
    };
    let given = rest.join(" ");
    let number = || given.parse().map_err(|e| format!("{given}: {e}"));
    let test = match *test {
        "version" => Test::Version(number()?),
        "created" => Test::Created(number()?),
        "modified" => Test::Modified(number()?),
        "lease" => Test::Lease(number()?),
        "value" => Test::Value(given.into()),
        other => return Err(format!("not a test: {other}")),
    };
    let relation = match *relation {
        "=" => Relation::Equal,
        ">" => Relation::Greater,
        "<" => Relation::Less,
        "!=" => Relation::NotEqual,
        other => return Err(format!("not a relation: {other}")),
    };
    Ok(Guard {
        span: span(keys)?,
        test,
        relation,
    })
}

fn op(text: &str) -> Parsed<Op> {
    if let Some(inner) = text.strip_prefix('{') {
        let inner = inner.strip_suffix('}').ok_or("a brace is missing")?;
        return Ok(Op::Txn(txn(inner)?));
    }
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    match word {
        "put" => Ok(Op::Put(put(rest)?)),
        "get" => Ok(Op::Range(range(rest)?)),
        "del" => {
            let mut words = rest.split_whitespace();
            let span = span(words.next().unwrap_or(""))?;
            let want_previous = words.next() == Some("prev");
            Ok(Op::Delete(Delete {
                span,
                want_previous,
            }))
        }
        other => Err(format!("not an operation: {other}")),
    }
}

fn put(text: &str) -> Parsed<Put> {
    let mut words = text.split_whitespace();
    let key = words.next().ok_or("a key is missing")?;
    let value = words.next().ok_or("a value is missing")?;
    let mut put = Put {
        key: key.to_owned().into(),
        value: Some(value.to_owned().into()).filter(|_| value != "keep"),
        lease: Some(LeaseId::NONE),
        want_previous: false,
    };
    for word in words {
        match word.split_once('=') {
            None if word == "prev" => put.want_previous = true,
            Some(("lease", "keep")) => put.lease = None,
            Some(("lease", id)) => put.lease = Some(LeaseId(number(id)?)),
            _ => return Err(format!("not part of a put: {word}")),
        }
    }
    Ok(put)
}

/// Parses what follows `get`.
pub fn range(text: &str) -> Parsed<Range> {
    let mut words = text.split_whitespace();
    let mut range = Range::of(span(words.next().unwrap_or(""))?);
    let bounds = |text: &str| -> Parsed<(u64, u64)> {
        let (min, max) = text.split_once("..").ok_or("not bounds")?;
        let bound = |text: &str| if text.is_empty() { Ok(0) } else { number(text) };
        Ok((bound(min)?, bound(max)?))
    };
    for word in words {
        let filter: &mut Filter = &mut range.filter;
        match word.split_once('=') {
            None if word == "count" => range.count_only = true,
            Some(("rev", revision)) => range.revision = Some(Revision(number(revision)?)),
            Some(("limit", limit)) => range.limit = number(limit)?,
            Some(("sort", by)) => range.sort = Some(sort(by)?),
            Some(("modified", text)) => (filter.modified_min, filter.modified_max) = bounds(text)?,
            Some(("created", text)) => (filter.created_min, filter.created_max) = bounds(text)?,
            _ => return Err(format!("not part of a get: {word}")),
        }
    }
    Ok(range)
}

/// `key` ascending, `-key` descending, `~key` cut at the limit and then sorted.
fn sort(text: &str) -> Parsed<Sort> {
    let by = match text.trim_start_matches(['-', '~']) {
        "key" => SortBy::Key,
        "version" => SortBy::Version,
        "created" => SortBy::Created,
        "modified" => SortBy::Modified,
        "value" => SortBy::Value,
        other => return Err(format!("not an order: {other}")),
    };
    Ok(Sort {
        by,
        descending: text.starts_with('-'),
        after_limit: text.starts_with('~'),
    })
}

pub fn span(text: &str) -> Parsed<Span> {
    let Some(inner) = text.strip_prefix('[') else {
        if text.is_empty() {
            return Err("a key is missing".to_owned());
        }
        return Ok(Span::single(text.to_owned()));
    };
    let inner = inner.strip_suffix(')').ok_or("not a span")?;
    let (start, end) = inner.split_once(',').ok_or("not a span")?;
    let end = if end == "*" {
        End::Unbounded
    } else {
        End::Before(end.to_owned().into())
    };
    Ok(Span {
        start: start.to_owned().into(),
        end,
    })
}

fn number<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Parsed<T> {
    text.parse().map_err(|e| format!("{text}: {e}"))
}
