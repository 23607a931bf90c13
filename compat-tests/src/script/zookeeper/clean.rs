//! Empties the tree between scenarios that share servers, as the super user whom they all know.

use anyhow::{Result, anyhow, ensure};

use super::connection::Connection;
use super::jute::{Fields, Record};
use super::{FRAME_DEADLINE, TIMEOUT_MS};

/// The error of a node that is not there.
const NO_NODE: i32 = -101;

/// Deletes every node, and returns the zxid that the member has then reached.
pub fn clean(port: u16) -> Result<i64> {
    let mut cleaner = Cleaner(Connection::open(port)?);
    let handshake = Record::default().int(0).long(0).int(TIMEOUT_MS).long(0);
    let handshake = handshake.buffer(Some(&[0; 16])).flag(false);
    cleaner.exchange(handshake)?;
    let identity = Record::default()
        .int(0)
        .string("digest")
        .buffer(Some(b"super:test"));
    cleaner.call(100, identity)?;
    cleaner.delete_below("")?;
    cleaner.delete_below("/zookeeper/quota")?;
    let (zxid, ..) = cleaner.call(9, Record::default().string("/"))?;
    cleaner.call(-11, Record::default())?;
    Ok(zxid)
}

struct Cleaner(Connection);

impl Cleaner {
    fn exchange(&mut self, record: Record) -> Result<Vec<u8>> {
        self.0.send_frame(&record.into_bytes());
        let answer = self.0.receive(FRAME_DEADLINE)?;
        answer.map_err(|instead| anyhow!("{instead} in place of an answer"))
    }

    /// The zxid, error code and body of the reply.
    fn call(&mut self, opcode: i32, body: Record) -> Result<(i64, i32, Vec<u8>)> {
        let request = Record::default().int(1).int(opcode).raw(&body.into_bytes());
        let frame = self.exchange(request)?;
        let mut fields = Fields(&frame);
        fields.int()?;
        Ok((fields.long()?, fields.int()?, fields.0.to_vec()))
    }

    fn delete_below(&mut self, path: &str) -> Result<()> {
        let shown = if path.is_empty() { "/" } else { path };
        let (_, code, body) = self.call(8, Record::default().string(shown).flag(false))?;
        if code == NO_NODE {
            return Ok(());
        }
        ensure!(code == 0, "children of {path:?}: {code}");
        for name in Fields(&body).list(Fields::string)? {
            let child = format!("{path}/{name}");
            if child == "/zookeeper" {
                continue;
            }
            self.delete_below(&child)?;
            // An ephemeral node may have gone by itself.
            let (_, code, _) = self.call(2, Record::default().string(&child).int(-1))?;
            ensure!(code == 0 || code == NO_NODE, "deleting {child:?}: {code}");
        }
        Ok(())
    }
}
