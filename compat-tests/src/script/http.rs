//! HTTP/1.1 as a script speaks it: one request on a connection of its own, whose answer is read
//! whole, or as it comes.

use std::io::ErrorKind;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, ReadHalf};
use tokio::net::TcpStream;

/// How long a server that should answer at once may take.
const DEADLINE: Duration = Duration::from_secs(20);
/// No answer that a script reads whole is larger.
const BODY_BYTES_MAX: usize = 4 << 20;
/// Nor is a piece of it, or a line of its head.
const PIECE_BYTES_MAX: u64 = 4 << 20;

/// A request's bytes; `headers` are whole lines without their ends.
pub fn request(method: &str, path: &str, host: &str, headers: &[String], body: &[u8]) -> Vec<u8> {
    let headers: String = headers.iter().map(|h| format!("{h}\r\n")).collect();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\
         Content-Length: {}\r\n{headers}\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// An answer whose head has come.
pub struct Answer {
    /// `200 OK`.
    pub status: String,
    headers: Vec<(String, String)>,
    is_chunked: bool,
    socket: BufReader<ReadHalf<TcpStream>>,
}

impl Answer {
    /// Sends `request`, and reads the head of the answer.
    ///
    /// # Errors
    /// When none comes in time.
    pub async fn to(port: u16, request: &[u8]) -> Result<Self> {
        let talk = async {
            let socket = TcpStream::connect(("127.0.0.1", port)).await?;
            let (reader, mut writer) = tokio::io::split(socket);
            // A server may refuse a request, and be gone, before it has read all of it.
            let answer = Self::read_head(BufReader::new(reader));
            let (_, answer) = tokio::join!(writer.write_all(request), answer);
            answer
        };
        let answer = tokio::time::timeout(DEADLINE, talk).await;
        answer.context("no answer")?
    }

    async fn read_head(mut socket: BufReader<ReadHalf<TcpStream>>) -> Result<Self> {
        let status = line(&mut socket).await?.context("no answer")?;
        let status = status.trim_start_matches("HTTP/1.1 ").to_owned();
        let mut headers = Vec::new();
        while let Some(line) = line(&mut socket).await?.filter(|line| !line.is_empty()) {
            if let Some((name, value)) = line.split_once(':') {
                headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
            }
        }
        let mut answer = Self {
            status,
            headers,
            is_chunked: false,
            socket,
        };
        answer.is_chunked = answer.header("transfer-encoding") == Some("chunked");
        Ok(answer)
    }

    /// The value of the header with this name, in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let named = self.headers.iter().find(|(key, _)| key == name);
        named.map(|(_, value)| value.as_str())
    }

    /// The next piece of the body; none at its end.
    ///
    /// # Errors
    /// When the connection breaks, or a piece is larger than any should be.
    pub async fn piece(&mut self) -> Result<Option<Vec<u8>>> {
        let mut piece = Vec::new();
        if self.is_chunked {
            let Some(size) = line(&mut self.socket).await? else {
                return Ok(None);
            };
            let size = u64::from_str_radix(&size, 16).context("the size of a chunk")?;
            ensure!(size <= PIECE_BYTES_MAX, "a chunk of {size} bytes");
            (&mut self.socket)
                .take(size)
                .read_to_end(&mut piece)
                .await?;
            line(&mut self.socket).await?;
        } else {
            match self.socket.fill_buf().await {
                Ok(buffered) => piece.extend_from_slice(buffered),
                // A reset ends an answer as well as an orderly end does.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
                Err(error) => return Err(error.into()),
            }
            self.socket.consume(piece.len());
        }
        Ok((!piece.is_empty()).then_some(piece))
    }

    /// The whole body.
    ///
    /// # Errors
    /// When it does not end in time, or never.
    pub async fn body(&mut self) -> Result<Vec<u8>> {
        let read = async {
            let mut body = Vec::new();
            while let Some(piece) = self.piece().await? {
                body.extend(piece);
                ensure!(body.len() <= BODY_BYTES_MAX, "a body without an end");
            }
            anyhow::Ok(body)
        };
        let body = tokio::time::timeout(DEADLINE, read).await;
        body.context("the connection stayed open")?
    }
}

/// A line without its end; none at the end of the connection.
async fn line(socket: &mut BufReader<ReadHalf<TcpStream>>) -> Result<Option<String>> {
    let mut line = Vec::new();
    let mut bounded = socket.take(PIECE_BYTES_MAX);
    if bounded.read_until(b'\n', &mut line).await? == 0 {
        return Ok(None);
    }
    ensure!(bounded.limit() > 0, "a line without an end");
    Ok(Some(String::from_utf8_lossy(&line).trim_end().to_owned()))
}
