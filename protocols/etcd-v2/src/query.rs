//! What a request for keys asks for. The first check that fails decides the error, in etcd's order
//! (etcdserver/api/v2http/client.go).

use crate::errors::{Code, Error};
use crate::form::Form;
use bytes::Bytes;

/// The methods of a request for keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// As GET, without the answer's content; never waits, nor asks the others.
    Head,
    /// Reads or waits.
    Get,
    /// Writes.
    Put,
    /// Writes beneath, under a number.
    Post,
    /// Deletes.
    Delete,
}

/// What the parameters of a request say. Which of them count depends on its method.
#[derive(Debug, Default)]
pub struct Query {
    /// The new value; empty where none is given.
    pub value: Bytes,
    /// What the value must be.
    pub prev_value: Option<Bytes>,
    /// Which event must have been the last that changed it.
    pub prev_index: Option<u64>,
    /// Whether it must be there, or must not.
    pub prev_exist: Option<bool>,
    /// After how many seconds it ends.
    pub ttl_s: Option<u64>,
    /// Keep the value and tell nobody.
    pub refresh: bool,
    /// A directory.
    pub dir: bool,
    /// With all that lies beneath.
    pub recursive: bool,
    /// No older than what others were answered.
    pub quorum: bool,
    /// Wait for an event ...
    pub wait: bool,
    /// ... from this one on ...
    pub wait_index: Option<u64>,
    /// ... and for more after it.
    pub stream: bool,
    /// Answer a write without its node.
    pub no_value_on_success: bool,
}

impl Query {
    /// Reads the parameters.
    pub fn parse(method: Method, form: &Form) -> Result<Query, Error> {
        // Zero is no condition: etcd does not tell it from none.
        let prev_index = index(form, "prevIndex")?.filter(|index| *index > 0);
        let wait_index = index(form, "waitIndex")?.filter(|index| *index > 0);
        let recursive = flag(form, "recursive")?;
        // What is listed is always in order.
        flag(form, "sorted")?;
        let wait = flag(form, "wait")?;
        let dir = flag(form, "dir")?;
        let quorum = flag(form, "quorum")?;
        let stream = flag(form, "stream")?;
        if wait && method != Method::Get {
            let cause = "\"wait\" can only be used with GET requests";
            return Err(Error::of_request(Code::InvalidField, cause));
        }
        let prev_value = form.get("prevValue").cloned();
        if prev_value.as_ref().is_some_and(Bytes::is_empty) {
            let cause = "\"prevValue\" cannot be empty";
            return Err(Error::of_request(Code::PrevValueRequired, cause));
        }
        let no_value_on_success = flag(form, "noValueOnSuccess")?;
        let ttl = form.get("ttl").filter(|ttl| !ttl.is_empty());
        let ttl_s = match ttl {
            None => None,
            Some(ttl) => Some(number(ttl).ok_or_else(|| {
                Error::of_request(Code::TtlNotANumber, "invalid value for \"ttl\"")
            })?),
        };
        let prev_exist = maybe_flag(form, "prevExist")?;
        let refresh = maybe_flag(form, "refresh")? == Some(true);
        let value = form.get("value").cloned().unwrap_or_default();
        if refresh && !value.is_empty() {
            let cause = "A value was provided on a refresh";
            return Err(Error::of_request(Code::RefreshValue, cause));
        }
        if refresh && ttl_s.is_none() {
            return Err(Error::of_request(
                Code::RefreshTtlRequired,
                "No TTL value set",
            ));
        }
        Ok(Query {
            value,
            prev_value,
            prev_index,
            prev_exist,
            ttl_s,
            refresh,
            dir,
            recursive,
            quorum,
            wait,
            wait_index,
            stream,
            no_value_on_success,
        })
    }

    /// Whether the request compares before it changes anything.
    pub fn compares(&self) -> bool {
        self.prev_value.is_some() || self.prev_index.is_some()
    }
}

fn index(form: &Form, name: &str) -> Result<Option<u64>, Error> {
    let Some(text) = form.get(name) else {
        return Ok(None);
    };
    let invalid = || Error::of_request(Code::IndexNotANumber, invalid_value(name));
    number(text).map(Some).ok_or_else(invalid)
}

/// A number as Go's `strconv.ParseUint` takes it: digits and nothing else.
fn number(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

fn flag(form: &Form, name: &str) -> Result<bool, Error> {
    let Some(text) = form.get(name) else {
        return Ok(false);
    };
    let invalid = || Error::of_request(Code::InvalidField, invalid_value(name));
    truth(text).ok_or_else(invalid)
}

/// The same of one that may be left out. etcd forgot the quotes here.
fn maybe_flag(form: &Form, name: &str) -> Result<Option<bool>, Error> {
    let Some(text) = form.get(name) else {
        return Ok(None);
    };
    let invalid = || Error::of_request(Code::InvalidField, format!("invalid value for {name}"));
    truth(text).map(Some).ok_or_else(invalid)
}

fn invalid_value(name: &str) -> String {
    format!("invalid value for \"{name}\"")
}

/// Go's spellings of truth.
fn truth(text: &[u8]) -> Option<bool> {
    match text {
        b"1" | b"t" | b"T" | b"TRUE" | b"true" | b"True" => Some(true),
        b"0" | b"f" | b"F" | b"FALSE" | b"false" | b"False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: Method, query: &str) -> Result<Query, Error> {
        let form = Form::parse(b"", query.as_bytes()).expect("a form");
        Query::parse(method, &form)
    }

    fn refusal(method: Method, query: &str) -> String {
        let refused = parse(method, query).expect_err("it is refused");
        let cause = String::from_utf8(refused.cause.to_vec()).expect("text");
        format!("{} {cause}", refused.code.number())
    }

    #[test]
    fn the_first_check_that_fails_decides() {
        for (query, expected) in [
            (
                "prevIndex=x&waitIndex=x",
                "203 invalid value for \"prevIndex\"",
            ),
            (
                "recursive=x&waitIndex=-1",
                "203 invalid value for \"waitIndex\"",
            ),
            ("waitIndex=", "203 invalid value for \"waitIndex\""),
            ("prevIndex=%2B1", "203 invalid value for \"prevIndex\""),
            (
                "prevIndex=18446744073709551616",
                "203 invalid value for \"prevIndex\"",
            ),
            (
                "sorted=2&recursive=tRUE",
                "209 invalid value for \"recursive\"",
            ),
            ("quorum=&dir=", "209 invalid value for \"dir\""),
            ("stream=x&quorum=y", "209 invalid value for \"quorum\""),
            (
                "wait=true&prevValue=",
                "209 \"wait\" can only be used with GET requests",
            ),
            ("prevValue=&ttl=x", "201 \"prevValue\" cannot be empty"),
            (
                "noValueOnSuccess=x&ttl=x",
                "209 invalid value for \"noValueOnSuccess\"",
            ),
            ("ttl=1.5&prevExist=x", "202 invalid value for \"ttl\""),
            ("prevExist=x&refresh=x", "209 invalid value for prevExist"),
            ("refresh=", "209 invalid value for refresh"),
            (
                "refresh=true&value=x",
                "211 A value was provided on a refresh",
            ),
            ("refresh=true&value=&ttl=", "212 No TTL value set"),
        ] {
            assert_eq!(refusal(Method::Put, query), expected, "{query}");
        }
    }

    #[test]
    fn what_is_empty_or_zero_may_be_none() {
        let query = parse(Method::Get, "ttl=&prevIndex=0&waitIndex=0&wait=T&refresh=f");
        let query = query.expect("it is well-formed");
        assert!(query.wait && !query.refresh && !query.compares());
        assert_eq!((query.ttl_s, query.wait_index), (None, None));
    }
}
