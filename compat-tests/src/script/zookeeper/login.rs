//! Logs in by SASL's DIGEST-MD5 (RFC 2831), as ZooKeeper's clients do.

use anyhow::{Context as _, Result, ensure};
use md5::{Digest as _, Md5};

use super::Session;
use super::jute::Fields;
use super::requests;
use crate::script::args::Args;

/// The client's part of the nonces: it need not be random to be compared.
const CNONCE: &str = "compat";
/// Whom ZooKeeper's clients ask to speak to.
const URI: &str = "zookeeper/zk-sasl-md5";

impl Session<'_> {
    /// Takes both steps, and prints how the last one that was taken ended.
    pub(super) fn log_in(&mut self, name: &str, args: &mut Args) -> Result<String> {
        let (user, password) = (args.word()?, args.word()?);
        let challenge = match self.sasl(name, b"")? {
            Step::Token(challenge) => String::from_utf8(challenge)?,
            Step::Else(text) => return Ok(text),
        };
        let nonce = directive(&challenge, "nonce")?;
        let realm = directive(&challenge, "realm")?;
        let secret = Md5::digest(format!("{user}:{realm}:{password}"));
        let tail = format!(":{nonce}:{CNONCE}");
        let secret = hex(&Md5::digest([&secret[..], tail.as_bytes()].concat()));
        let proof = |method: &str| {
            let what = hex(&Md5::digest(format!("{method}:{URI}")));
            hex(&Md5::digest(format!(
                "{secret}:{nonce}:00000001:{CNONCE}:auth:{what}"
            )))
        };
        let answer = format!(
            "charset=utf-8,username=\"{user}\",realm=\"{realm}\",nonce=\"{nonce}\",nc=00000001,\
             cnonce=\"{CNONCE}\",digest-uri=\"{URI}\",maxbuf=65536,response={},qop=auth",
            proof("AUTHENTICATE")
        );
        match self.sasl(name, answer.as_bytes())? {
            Step::Token(token) => {
                ensure!(token == format!("rspauth={}", proof("")).into_bytes());
                Ok("logged in".to_owned())
            }
            Step::Else(text) => Ok(text),
        }
    }

    fn sasl(&mut self, name: &str, token: &[u8]) -> Result<Step> {
        self.connection(name)?.send(&requests::sasl(token));
        let (text, frame) = self.next(name)?;
        let Some(frame) = frame else {
            return Ok(Step::Else(text));
        };
        let mut fields = Fields(&frame);
        fields.int()?;
        fields.long()?;
        Ok(match (fields.int()?, fields.buffer()?) {
            (0, Some(token)) => Step::Token(token.to_vec()),
            _ => Step::Else(text),
        })
    }
}

/// What comes back.
enum Step {
    Token(Vec<u8>),
    Else(String),
}

/// The value of a directive in quotes.
fn directive<'a>(challenge: &'a str, name: &str) -> Result<&'a str> {
    let (_, after) = challenge
        .split_once(&format!("{name}=\""))
        .with_context(|| format!("no {name} in {challenge:?}"))?;
    let (value, _) = after.split_once('"').context("no closing quote")?;
    Ok(value)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
