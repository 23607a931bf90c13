//! Reads the words of one script command: leading words, flags and `key=value` pairs.

use std::collections::VecDeque;

use anyhow::{Context, Result, anyhow, bail};
use goldenscript::{Argument, Command};

/// The words of one command, consumed one by one; what is left over is an error.
#[derive(Clone, Debug)]
pub struct Args {
    words: VecDeque<String>,
    pairs: Vec<(String, String)>,
}

impl Args {
    /// All words after the command's name.
    pub fn new(command: &Command) -> Self {
        let mut args = Self {
            words: VecDeque::new(),
            pairs: Vec::new(),
        };
        for argument in &command.args {
            match argument {
                Argument::Positional(word) => args.words.push_back(word.clone()),
                Argument::KeyValue(key, value) => args.pairs.push((key.clone(), value.clone())),
                other => unreachable!("goldenscript has no further kind of argument: {other}"),
            }
        }
        args
    }

    /// The words of a text, separated by spaces; `key=value` is a pair.
    pub fn from_text(text: &str) -> Self {
        let mut args = Self {
            words: VecDeque::new(),
            pairs: Vec::new(),
        };
        for word in text.split_whitespace() {
            match word.split_once('=') {
                Some((key, value)) => args.pairs.push((key.to_owned(), value.to_owned())),
                None => args.words.push_back(word.to_owned()),
            }
        }
        args
    }

    /// The same words with `{}` replaced by `index`, for commands that are repeated.
    pub fn numbered(&self, index: usize) -> Self {
        let number = format!("{index:03}");
        let mut args = self.clone();
        let values = args.pairs.iter_mut().map(|(_, value)| value);
        for text in args.words.iter_mut().chain(values) {
            *text = text.replace("{}", &number);
        }
        args
    }

    /// The next leading word.
    pub fn word(&mut self) -> Result<String> {
        self.words.pop_front().context("a word is missing")
    }

    /// The next leading word, if any is left.
    pub fn optional_word(&mut self) -> Option<String> {
        self.words.pop_front()
    }

    /// The next leading word as bytes.
    pub fn bytes(&mut self) -> Result<Vec<u8>> {
        to_bytes(&self.word()?)
    }

    /// Whether the flag `name` is among the remaining words.
    pub fn flag(&mut self, name: &str) -> bool {
        let before = self.words.len();
        self.words.retain(|word| word != name);
        self.words.len() < before
    }

    /// Whether `key=` is among the remaining pairs.
    pub fn has(&self, key: &str) -> bool {
        self.pairs.iter().any(|(name, _)| name == key)
    }

    /// The value of `key=`.
    pub fn value(&mut self, key: &str) -> Option<String> {
        let at = self.pairs.iter().position(|(name, _)| name == key)?;
        Some(self.pairs.remove(at).1)
    }

    /// The value of `key=`, which stays there.
    pub fn peek(&self, key: &str) -> Option<&str> {
        let pair = self.pairs.iter().find(|(name, _)| name == key);
        pair.map(|(_, value)| value.as_str())
    }

    /// Adds `key=value` before all other pairs.
    pub fn push_front(&mut self, key: &str, value: &str) {
        self.pairs.insert(0, (key.to_owned(), value.to_owned()));
    }

    /// All pairs that nothing has read yet.
    pub fn rest(&mut self) -> Vec<(String, String)> {
        std::mem::take(&mut self.pairs)
    }

    /// Every value of `key=`, in order.
    pub fn values(&mut self, key: &str) -> Vec<String> {
        std::iter::from_fn(|| self.value(key)).collect()
    }

    /// The value of `key=` as a number, 0 when absent.
    pub fn number(&mut self, key: &str) -> Result<i64> {
        self.value(key).map_or(Ok(0), |text| parse_number(&text))
    }

    /// The range end: `end=`, or `prefix` for the keys that start with `key`, or `from` for all
    /// keys from `key` on.
    pub fn range_end(&mut self, key: &[u8]) -> Result<Vec<u8>> {
        if let Some(end) = self.value("end") {
            return to_bytes(&end);
        }
        if self.flag("prefix") {
            let mut end = key.to_vec();
            while end.pop_if(|byte| *byte == u8::MAX).is_some() {}
            match end.last_mut() {
                Some(last) => *last += 1,
                None => end.push(0),
            }
            return Ok(end);
        }
        if self.flag("from") {
            return Ok(vec![0]);
        }
        Ok(Vec::new())
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty() && self.pairs.is_empty()
    }

    /// Refuses words that nothing has read.
    pub fn finish(&self) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        bail!("words nobody reads: {:?} {:?}", self.words, self.pairs)
    }
}

/// A number, in decimal.
pub fn parse_number(text: &str) -> Result<i64> {
    text.parse().with_context(|| format!("number {text:?}"))
}

/// The bytes of a script string: a character up to U+00FF is one byte.
pub fn to_bytes(text: &str) -> Result<Vec<u8>> {
    text.chars()
        .map(|c| u8::try_from(u32::from(c)).map_err(|_| anyhow!("{c:?} is no byte")))
        .collect()
}

/// Bytes as a word of a reply: plain when they are short and plain, escaped otherwise, and only a size when long.
pub fn shown(bytes: &[u8]) -> String {
    const SHOWN_MAX: usize = 64;
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/_-.".contains(byte);
    if bytes.len() > SHOWN_MAX {
        return format!("[{} bytes]", bytes.len());
    }
    if !bytes.is_empty() && bytes.iter().all(plain) {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    format!("\"{}\"", bytes.escape_ascii())
}
