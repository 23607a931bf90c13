//! SASL's mechanism DIGEST-MD5 (RFC 2831), the server's side, as Java offers it: quality of protection
//! `auth` and one realm. Pure: nonces come from outside.

use md5::{Digest, Md5};
use std::borrow::Cow;
use std::collections::BTreeMap;
use thiserror::Error;

/// The realm, and the name of every server: clients need not know which one they reach.
const REALM: &str = "zk-sasl-md5";
/// What clients ask to speak to.
const DIGEST_URI: &str = "zookeeper/zk-sasl-md5";
/// The longest answer to a challenge (RFC 2831, 2.1.2).
const ANSWER_BYTES_MAX: usize = 4096;

/// Who may log in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users {
    /// Names and passwords.
    pub passwords: BTreeMap<String, String>,
}

/// How far a client has come.
#[derive(Debug, Default)]
pub enum Exchange {
    /// It has said nothing.
    #[default]
    Begin,
    /// It has a challenge to answer, with this nonce.
    Challenged(String),
    /// It has logged in, or may not try again.
    Over,
}

/// Why a client did not log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// The answer breaks the mechanism's rules.
    #[error("not an answer to the challenge: {0}")]
    Malformed(&'static str),
    /// No such user, or another password.
    #[error("unknown user or wrong password")]
    Unknown,
    /// The exchange is over.
    #[error("nothing was asked")]
    Over,
}

/// What a client is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// To be sent.
    pub token: Vec<u8>,
    /// Who it has shown to be, once it has.
    pub user: Option<String>,
}

impl Exchange {
    /// Takes what the client sent. The nonce is for a challenge: fresh, unguessable, without quotes.
    pub fn step(
        &mut self,
        users: &Users,
        token: &[u8],
        nonce: impl FnOnce() -> String,
    ) -> Result<Step, Refused> {
        match std::mem::replace(self, Exchange::Over) {
            // Java's server does not look at what a client begins with.
            Exchange::Begin => {
                let nonce = nonce();
                let challenge = format!(
                    "realm=\"{REALM}\",nonce=\"{nonce}\",qop=\"auth\",charset=utf-8,algorithm=md5-sess"
                );
                *self = Exchange::Challenged(nonce);
                Ok(Step {
                    token: challenge.into_bytes(),
                    user: None,
                })
            }
            Exchange::Challenged(nonce) => judge(users, token, &nonce),
            Exchange::Over => Err(Refused::Over),
        }
    }
}

fn judge(users: &Users, token: &[u8], nonce: &str) -> Result<Step, Refused> {
    let answer = Answer::parse(token)?;
    answer.check(nonce)?;
    let password = users.passwords.get(&*answer.user).ok_or(Refused::Unknown)?;
    if answer.response != answer.digest(password, "AUTHENTICATE").as_bytes() {
        return Err(Refused::Unknown);
    }
    let proof = answer.digest(password, "");
    Ok(Step {
        token: format!("rspauth={proof}").into_bytes(),
        user: Some(answer.user.into_owned()),
    })
}

/// An answer to the challenge.
struct Answer<'a> {
    user: Cow<'a, str>,
    realm: Cow<'a, [u8]>,
    nonce: Cow<'a, [u8]>,
    cnonce: Cow<'a, [u8]>,
    count: Cow<'a, [u8]>,
    qop: Option<Cow<'a, [u8]>>,
    uri: Cow<'a, [u8]>,
    response: Cow<'a, [u8]>,
    authzid: Option<Cow<'a, [u8]>>,
}

impl<'a> Answer<'a> {
    fn parse(token: &'a [u8]) -> Result<Answer<'a>, Refused> {
        if token.len() > ANSWER_BYTES_MAX {
            return Err(Refused::Malformed("too long"));
        }
        let mut directives = directives(token)?;
        let mut take = |name: &str| directives.remove(name.as_bytes());
        let need = |value: Option<_>, why| value.ok_or(Refused::Malformed(why));
        let is_utf8 = match take("charset") {
            None => false,
            Some(charset) if charset.eq_ignore_ascii_case(b"utf-8") => true,
            Some(_) => return Err(Refused::Malformed("charset")),
        };
        let user = need(take("username"), "no username")?;
        let user = match is_utf8 {
            true => String::from_utf8(user.into_owned()),
            false => Ok(user.iter().copied().map(char::from).collect()),
        };
        Ok(Answer {
            user: user.map_err(|_| Refused::Malformed("username"))?.into(),
            realm: take("realm").unwrap_or_default(),
            nonce: need(take("nonce"), "no nonce")?,
            cnonce: need(take("cnonce"), "no cnonce")?,
            count: need(take("nc"), "no nc")?,
            qop: take("qop"),
            uri: need(take("digest-uri"), "no digest-uri")?,
            response: need(take("response"), "no response")?,
            authzid: take("authzid"),
        })
    }

    /// Whether it belongs to the challenge.
    fn check(&self, nonce: &str) -> Result<(), Refused> {
        let realm = &*self.realm;
        let checks = [
            (realm == REALM.as_bytes() || realm.is_empty(), "realm"),
            (*self.nonce == *nonce.as_bytes(), "nonce"),
            (*self.count == *b"00000001", "nc"),
            (self.qop.as_deref().is_none_or(|qop| qop == b"auth"), "qop"),
            (
                self.uri.eq_ignore_ascii_case(DIGEST_URI.as_bytes()),
                "digest-uri",
            ),
        ];
        match checks.iter().find(|(holds, _)| !holds) {
            Some((_, why)) => Err(Refused::Malformed(why)),
            None => Ok(()),
        }
    }

    /// What proves the password: the client's proof with `AUTHENTICATE`, the server's with nothing.
    fn digest(&self, password: &str, method: &str) -> String {
        let (user, password) = (latin1(&self.user), latin1(password));
        let mut a1 = md5([&*user, &*self.realm, &*password]).to_vec();
        let authzid = self.authzid.as_deref();
        for part in [&*self.nonce, &*self.cnonce].into_iter().chain(authzid) {
            a1.push(b':');
            a1.extend_from_slice(part);
        }
        let a2 = md5([method.as_bytes(), &*self.uri]);
        let digest = md5([
            hex(&md5([&a1[..]])).as_bytes(),
            &*self.nonce,
            &*self.count,
            &*self.cnonce,
            b"auth",
            hex(&a2).as_bytes(),
        ]);
        hex(&digest)
    }
}

/// The digest of some parts with colons between them.
fn md5<const N: usize>(parts: [&[u8]; N]) -> [u8; 16] {
    Md5::digest(parts.join(&b':')).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A text as it is digested: in ISO 8859-1 if that has all its letters, in UTF-8 otherwise.
fn latin1(text: &str) -> Cow<'_, [u8]> {
    let letters: Result<Vec<u8>, _> = text.chars().map(u8::try_from).collect();
    match letters {
        Ok(letters) => Cow::Owned(letters),
        Err(_) => Cow::Borrowed(text.as_bytes()),
    }
}

/// `name=value` or `name="value"`, separated by commas; in quotes a backslash takes the next letter
/// as it is.
fn directives(mut rest: &[u8]) -> Result<BTreeMap<Vec<u8>, Cow<'_, [u8]>>, Refused> {
    let mut directives = BTreeMap::new();
    loop {
        while let Some((b',' | b' ' | b'\t' | b'\r' | b'\n', after)) = rest.split_first() {
            rest = after;
        }
        if rest.is_empty() {
            return Ok(directives);
        }
        let equals = rest.iter().position(|byte| *byte == b'=');
        let equals = equals.ok_or(Refused::Malformed("no value"))?;
        let name = rest[..equals].trim_ascii().to_ascii_lowercase();
        let (value, after) = match rest[equals + 1..].strip_prefix(b"\"") {
            Some(quoted) => unquote(quoted)?,
            None => {
                let value = &rest[equals + 1..];
                let end = value.iter().position(|byte| *byte == b',');
                let (value, after) = value.split_at(end.unwrap_or(value.len()));
                (Cow::Borrowed(value.trim_ascii()), after)
            }
        };
        rest = after;
        if directives.insert(name, value).is_some() {
            return Err(Refused::Malformed("a directive twice"));
        }
    }
}

/// Splits behind a closing quote.
fn unquote(text: &[u8]) -> Result<(Cow<'_, [u8]>, &[u8]), Refused> {
    let mut value = Vec::new();
    let mut bytes = text.iter().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => return Ok((Cow::Owned(value), &text[at + 1..])),
            b'\\' => value.extend(bytes.next().map(|(_, byte)| *byte)),
            byte => value.push(*byte),
        }
    }
    Err(Refused::Malformed("no closing quote"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: &str = "OA6MG9tEQGm2hh";

    fn users() -> Users {
        let known = [("chris", "secret"), ("bjørn", "smørbrød"), ("Ω", "λ")];
        let passwords = known.map(|(user, password)| (user.to_owned(), password.to_owned()));
        Users {
            passwords: passwords.into(),
        }
    }

    fn challenged() -> Exchange {
        let mut exchange = Exchange::default();
        let step = exchange.step(&users(), b"", || NONCE.to_owned());
        let challenge = "realm=\"zk-sasl-md5\",nonce=\"OA6MG9tEQGm2hh\",qop=\"auth\",charset=utf-8,\
                         algorithm=md5-sess";
        let token = challenge.as_bytes().to_vec();
        assert_eq!(step, Ok(Step { token, user: None }));
        exchange
    }

    /// What a client of this password answers.
    fn answer(user: &str, password: &str) -> Vec<u8> {
        let said = |response: &str| {
            format!(
                "charset=utf-8,username=\"{user}\",realm=\"zk-sasl-md5\",nonce=\"{NONCE}\",nc=00000001,\
                 cnonce=\"OA6MHXh6VqTrRk\",digest-uri=\"zookeeper/zk-sasl-md5\",response={response},\
                 qop=auth"
            )
        };
        let text = said("0");
        let parsed = Answer::parse(text.as_bytes()).expect("an answer");
        said(&parsed.digest(password, "AUTHENTICATE")).into_bytes()
    }

    /// The example of RFC 2831, section 4.
    #[test]
    fn digests_are_those_of_the_standard() {
        let token = b"charset=utf-8,username=\"chris\",realm=\"elwood.innosoft.com\",\
            nonce=\"OA6MG9tEQGm2hh\",nc=00000001,cnonce=\"OA6MHXh6VqTrRk\",\
            digest-uri=\"imap/elwood.innosoft.com\",\
            response=d388dad90d4bbd760a152321f2143af7,qop=auth";
        let answer = Answer::parse(token).expect("an answer");
        let proof = answer.digest("secret", "AUTHENTICATE");
        assert_eq!(answer.response, proof.as_bytes());
        let back = answer.digest("secret", "");
        assert_eq!(back, "ea40f60335c427b5527b84dbabcdfffd");
    }

    #[test]
    fn who_knows_the_password_is_let_in_and_shown_that_the_server_does() {
        for (user, password) in [("chris", "secret"), ("bjørn", "smørbrød"), ("Ω", "λ")] {
            let token = answer(user, password);
            let mut exchange = challenged();
            let step = exchange
                .step(&users(), &token, String::new)
                .expect("let in");
            assert_eq!(step.user.as_deref(), Some(user));
            let parsed = Answer::parse(&token).expect("an answer");
            let proof = format!("rspauth={}", parsed.digest(password, ""));
            assert_eq!(step.token, proof.as_bytes());
            let again = exchange.step(&users(), &token, String::new);
            assert_eq!(again, Err(Refused::Over));
        }
    }

    #[test]
    fn others_are_not() {
        for (token, refused) in [
            (answer("chris", "wrong"), Refused::Unknown),
            (answer("nobody", "secret"), Refused::Unknown),
            (b"".to_vec(), Refused::Malformed("no username")),
            (b"username".to_vec(), Refused::Malformed("no value")),
            (
                b"username=\"a\\".to_vec(),
                Refused::Malformed("no closing quote"),
            ),
            (
                [&answer("chris", "secret")[..], b",qop=auth"].concat(),
                Refused::Malformed("a directive twice"),
            ),
            (vec![b'x'; 5000], Refused::Malformed("too long")),
        ] {
            let mut exchange = challenged();
            let step = exchange.step(&users(), &token, String::new);
            assert_eq!(step, Err(refused), "{}", token.escape_ascii());
        }
        let token = answer("chris", "secret");
        let text = String::from_utf8(token).expect("a text");
        for (is, other, why) in [
            ("OA6MG9tEQGm2hh", "replayed", "nonce"),
            ("nc=00000001", "nc=00000002", "nc"),
            ("realm=\"zk-sasl-md5\"", "realm=\"other\"", "realm"),
            ("zookeeper/", "imap/", "digest-uri"),
            ("qop=auth", "qop=auth-int", "qop"),
            ("charset=utf-8", "charset=latin1", "charset"),
        ] {
            let token = text.replace(is, other);
            let step = challenged().step(&users(), token.as_bytes(), String::new);
            assert_eq!(step, Err(Refused::Malformed(why)));
        }
        let mut hasty = Exchange::default();
        let step = hasty.step(&users(), text.as_bytes(), || NONCE.to_owned());
        assert!(step.is_ok_and(|step| step.user.is_none()));
    }
}
