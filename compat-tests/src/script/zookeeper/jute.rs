//! The wire's records: big-endian numbers, and buffers, strings and lists whose length comes
//! first, -1 for one that is not there.

use anyhow::{Context, Result, ensure};

/// A record that is being written.
#[derive(Clone, Debug, Default)]
pub struct Record(Vec<u8>);

impl Record {
    /// The bytes so far.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// Four bytes.
    pub fn int(mut self, value: i32) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    /// Eight bytes.
    pub fn long(mut self, value: i64) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    /// One byte.
    pub fn flag(mut self, value: bool) -> Self {
        self.0.push(u8::from(value));
        self
    }

    /// Bytes as they are.
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// A length, and the bytes.
    pub fn buffer(self, bytes: Option<&[u8]>) -> Self {
        match bytes {
            None => self.int(-1),
            Some(bytes) => self.length(bytes.len()).raw(bytes),
        }
    }

    /// A string in UTF-8.
    pub fn string(self, text: &str) -> Self {
        self.buffer(Some(text.as_bytes()))
    }

    /// A list of strings.
    pub fn strings(self, texts: &[String]) -> Self {
        let list = self.length(texts.len());
        texts.iter().fold(list, |list, text| list.string(text))
    }

    /// How many follow.
    pub fn length(self, length: usize) -> Self {
        self.int(i32::try_from(length).expect("a script's values are small"))
    }
}

/// A record that is being read.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        ensure!(
            self.0.len() >= length,
            "{} bytes short",
            length - self.0.len()
        );
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        Ok(taken)
    }

    /// Four bytes.
    pub fn int(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.take(4)?.try_into()?))
    }

    /// Eight bytes.
    pub fn long(&mut self) -> Result<i64> {
        Ok(i64::from_be_bytes(self.take(8)?.try_into()?))
    }

    /// One byte, 0 or 1.
    pub fn flag(&mut self) -> Result<bool> {
        let byte = self.take(1)?[0];
        ensure!(byte <= 1, "{byte} is no bool");
        Ok(byte == 1)
    }

    /// Bytes, or none at all.
    pub fn buffer(&mut self) -> Result<Option<&'a [u8]>> {
        let length = self.int()?;
        if length == -1 {
            return Ok(None);
        }
        let length = usize::try_from(length).context("a negative length")?;
        self.take(length).map(Some)
    }

    /// A string in UTF-8; one that is not there reads `null`.
    pub fn string(&mut self) -> Result<String> {
        Ok(match self.buffer()? {
            None => "null".to_owned(),
            Some(bytes) => String::from_utf8(bytes.to_vec())?,
        })
    }

    /// A list, each element read by `element`.
    pub fn list<T>(&mut self, mut element: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let length = self.int()?;
        ensure!(length >= 0, "a list of length {length}");
        (0..length).map(|_| element(self)).collect()
    }
}
