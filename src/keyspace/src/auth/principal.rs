//! On whose behalf something is asked, and how that is written down.

use minicbor::data::Type;
use minicbor::decode::{Decoder, Error};
use minicbor::encode::{self, Encoder, Write};
use minicbor::{Decode, Encode};
use std::sync::Arc;

/// On whose behalf something is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Principal {
    /// The cluster's own: it is not judged.
    #[default]
    System,
    /// A client's that named nobody.
    Anonymous,
    /// A client's that has shown to be a user.
    User {
        /// Which one.
        name: Arc<str>,
        /// The [`super::Auth::revision`] at which that was shown, if it only counts until anything
        /// about users and roles changes.
        at: Option<u64>,
    },
}

impl Principal {
    /// A user, whatever changes.
    pub fn user(name: impl Into<Arc<str>>) -> Principal {
        Principal::User {
            name: name.into(),
            at: None,
        }
    }
}

/// False, true, the name, or the name with the revision: nearly every command of the log has one.
impl<C> Encode<C> for Principal {
    fn encode<W: Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        match self {
            Principal::System => e.bool(false)?.ok(),
            Principal::Anonymous => e.bool(true)?.ok(),
            Principal::User { name, at: None } => e.str(name)?.ok(),
            Principal::User { name, at: Some(at) } => e.array(2)?.str(name)?.u64(*at)?.ok(),
        }
    }
}

impl<'b, C> Decode<'b, C> for Principal {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, Error> {
        match d.datatype()? {
            Type::Bool => Ok(match d.bool()? {
                false => Principal::System,
                true => Principal::Anonymous,
            }),
            Type::String => Ok(Principal::user(d.str()?)),
            Type::Array => {
                if d.array()? != Some(2) {
                    return Err(Error::message("a user has a name and a revision"));
                }
                Ok(Principal::User {
                    name: d.str()?.into(),
                    at: Some(d.u64()?),
                })
            }
            other => Err(Error::type_mismatch(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let user = |at| Principal::User {
            name: "alice".into(),
            at,
        };
        for (principal, len) in [
            (Principal::System, 1),
            (Principal::Anonymous, 1),
            (user(None), 6),
            (user(Some(7)), 8),
        ] {
            let bytes = minicbor::to_vec(&principal).expect("writing to memory cannot fail");
            assert_eq!(bytes.len(), len, "{principal:?}");
            let read: Principal = minicbor::decode(&bytes).expect("it was just written");
            assert_eq!(read, principal);
        }
        assert!(minicbor::decode::<Principal>(&[0x81, 0x61, b'a']).is_err());
        assert!(minicbor::decode::<Principal>(&[0x07]).is_err());
    }
}
