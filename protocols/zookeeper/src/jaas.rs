//! The files in which Java's login configuration lies: who may log in.
//!
//! ```text
//! Server {
//!     org.apache.zookeeper.server.auth.DigestLoginModule required
//!     user_super="adminsecret"
//!     user_bob="bobsecret";
//! };
//! ```

use crate::sasl::Users;

/// What the options begin with that name a user.
const USER: &str = "user_";

/// The users that a section names, none where there is no such section, or why they cannot be told.
pub fn users(text: &str, section: &str) -> Result<Option<Users>, String> {
    let tokens = tokens(text)?;
    let mut rest = &tokens[..];
    while !rest.is_empty() {
        let [name, Token::Sign('{'), body @ ..] = rest else {
            return Err("a section has no name or no opening brace".to_owned());
        };
        let end = body.iter().position(|token| *token == Token::Sign('}'));
        let end = end.ok_or("a closing brace is missing")?;
        if name.text() == Some(section) {
            return options(&body[..end]).map(Some);
        }
        rest = &body[end + 1..];
        if let [Token::Sign(';'), after @ ..] = rest {
            rest = after;
        }
    }
    Ok(None)
}

/// The users among the options of a section's modules.
fn options(tokens: &[Token]) -> Result<Users, String> {
    let mut users = Users::default();
    for triple in tokens.windows(3) {
        let [name, Token::Sign('='), value] = triple else {
            continue;
        };
        let (Some(name), Some(value)) = (name.text(), value.text()) else {
            return Err("an option without a name or a value".to_owned());
        };
        if let Some(user) = name.strip_prefix(USER) {
            users.passwords.insert(user.to_owned(), value.to_owned());
        }
    }
    if users.passwords.is_empty() {
        return Err("the section names no user".to_owned());
    }
    Ok(users)
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Sign(char),
}

impl Token {
    fn text(&self) -> Option<&str> {
        match self {
            Token::Word(word) => Some(word),
            Token::Sign(_) => None,
        }
    }
}

/// Words, which may be in quotes, and signs; comments are left out.
fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        rest = match first {
            '/' if rest.starts_with("//") => rest.split_once('\n').map_or("", |(_, after)| after),
            '/' if rest.starts_with("/*") => {
                let end = rest.split_once("*/");
                end.ok_or("a comment does not end")?.1
            }
            '{' | '}' | '=' | ';' => {
                tokens.push(Token::Sign(first));
                &rest[1..]
            }
            '"' => {
                let (word, after) = quoted(&rest[1..]).ok_or("a closing quote is missing")?;
                tokens.push(Token::Word(word));
                after
            }
            _ => {
                let is_end = |c: char| c.is_whitespace() || "{}=;\"".contains(c);
                let end = rest.find(is_end).unwrap_or(rest.len());
                tokens.push(Token::Word(rest[..end].to_owned()));
                &rest[end..]
            }
        }
        .trim_start();
    }
    Ok(tokens)
}

/// Splits behind a closing quote; a backslash takes the next letter as it is.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut word = String::new();
    let mut letters = text.char_indices();
    loop {
        match letters.next()? {
            (at, '"') => return Some((word, &text[at + 1..])),
            (_, '\\') => word.push(letters.next()?.1),
            (_, letter) => word.push(letter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        // Members among each other.
        QuorumServer { org.apache.zookeeper.server.auth.DigestLoginModule required user_q="x"; };
        Server {
            org.apache.zookeeper.server.auth.DigestLoginModule required
            debug=true /* user_old="gone" */
            user_super="admin\"secret"
            user_bob=plain;
        };
        Client { };
    "#;

    #[test]
    fn a_section_names_its_users() {
        let users = users(FILE, "Server").expect("it is well-formed");
        let users = users.expect("there is such a section");
        let known: Vec<_> = users.passwords.into_iter().collect();
        let pair = |user: &str, password: &str| (user.to_owned(), password.to_owned());
        assert_eq!(
            known,
            [pair("bob", "plain"), pair("super", "admin\"secret")]
        );
    }

    #[test]
    fn without_its_section_there_are_no_users() {
        for (text, section) in [(FILE, "Other"), ("", "Server")] {
            assert!(users(text, section).expect("it is well-formed").is_none());
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for (text, section) in [
            (FILE, "Client"),
            ("Server { user_a=\"b", "Server"),
            ("Server { user_a=b", "Server"),
            ("Server { /* user_a=b }", "Server"),
            ("Server { user_a==b }", "Server"),
            ("Server", "Server"),
        ] {
            assert!(users(text, section).is_err(), "{text}");
        }
    }
}
