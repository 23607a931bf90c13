//! Reads the words of a command into a request.

use anyhow::Result;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::super::args::Args;
use super::super::http;
use super::mask::Mask;

/// What a client that sends a form says of it.
const FORM: &str = "application/x-www-form-urlencoded";
/// What of a form is left as it is; all else is escaped.
const PLAIN: &[u8] = b"-._~";

/// One request.
pub struct Ask {
    method: String,
    path: String,
    headers: Vec<String>,
    body: Vec<u8>,
    /// Whether the order of a listing was asked for; it is chance otherwise.
    pub is_sorted: bool,
}

impl Ask {
    /// A request without anything about it.
    pub fn plain(method: &str, path: &str) -> Self {
        Self {
            method: method.to_owned(),
            path: path.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
            is_sorted: false,
        }
    }

    /// Reads the words after `verb`, except those of [`Show`].
    ///
    /// # Errors
    /// When one is missing.
    pub fn read(verb: &str, args: &mut Args, mask: &mut Mask) -> Result<Self> {
        let mut ask = if verb == "http" {
            let method = args.word()?;
            Self::plain(&method, &args.word()?)
        } else {
            Self::plain(
                &verb.to_ascii_uppercase(),
                &format!("/v2/keys{}", args.word()?),
            )
        };
        if let Some(login) = args.value("as") {
            let login = BASE64_STANDARD.encode(login);
            ask.headers.push(format!("Authorization: Basic {login}"));
        }
        ask.headers.extend(args.values("header"));
        let typed = |kind| format!("Content-Type: {kind}");
        if let Some(json) = args.value("json") {
            ask.headers.push(typed("application/json"));
            ask.body = mask.expand(&json).into_bytes();
        } else if let Some(body) = args.value("body") {
            ask.body = mask.expand(&body).into_bytes();
        } else if let Some(form) = args.value("form") {
            ask.headers.push(typed(FORM));
            ask.body = mask.expand(&form).into_bytes();
        } else if verb != "http" {
            let fill = usize::try_from(args.number("fill")?)?;
            let mut pairs = args.rest();
            if fill > 0 {
                pairs.push(("value".to_owned(), "x".repeat(fill)));
            }
            ask.add_pairs(&pairs, mask);
        }
        ask.path = mask.expand(&ask.path);
        ask.is_sorted = ask.path.contains("sorted=true");
        Ok(ask)
    }

    /// Pairs are a form where there is one, else a query.
    fn add_pairs(&mut self, pairs: &[(String, String)], mask: &mut Mask) {
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(name, value)| {
                if name == "ttl"
                    && let Ok(ttl) = value.parse()
                {
                    mask.ttls.insert(ttl);
                }
                let value = mask.expand(value);
                format!("{name}={}", escaped(value.as_bytes(), PLAIN))
            })
            .collect();
        let pairs = pairs.join("&");
        if matches!(self.method.as_str(), "PUT" | "POST") {
            self.headers.push(format!("Content-Type: {FORM}"));
            self.body = pairs.into_bytes();
        } else if !pairs.is_empty() {
            self.path = format!("{}?{pairs}", self.path);
        }
    }

    /// What is sent to the member on that port.
    pub fn bytes(&self, port: u16) -> Vec<u8> {
        let host = format!("127.0.0.1:{port}");
        http::request(&self.method, &self.path, &host, &self.headers, &self.body)
    }
}

/// What of a reply to show.
#[derive(Clone, Copy)]
pub struct Show {
    /// Only the status.
    pub status: bool,
    /// No body.
    pub head: bool,
    /// No headers.
    pub body: bool,
    /// Which headers let other sites' pages read it.
    pub cors: bool,
    /// Figures as `N`.
    pub shape: bool,
}

impl Show {
    /// Reads its words.
    pub fn read(args: &mut Args) -> Self {
        Self {
            status: args.flag("status"),
            head: args.flag("head"),
            body: args.flag("body"),
            cors: args.flag("cors"),
            shape: args.flag("shape"),
        }
    }
}

/// Text as a URL has it: letters, digits and those in `plain` as they are.
pub fn escaped(text: &[u8], plain: &[u8]) -> String {
    let show = |byte: &u8| {
        if byte.is_ascii_alphanumeric() || plain.contains(byte) {
            char::from(*byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    text.iter().map(show).collect()
}
