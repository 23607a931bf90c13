//! An etcd of one member that keeps nothing: `cargo run -p etcd-v3 --example in_memory -- [ADDRESS]`,
//! then `etcdctl --endpoints ADDRESS put a 1`.

use gateway::{Gate, Hub, Limits};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let address = std::env::args().nth(1);
    let listener = TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:0")).await?;
    println!("listening on {}", listener.local_addr()?);

    let hub = Hub::new();
    let replica = replica::start_in_memory(replica::Config::default(), hub.sink()).await?;
    let gate = Gate::new(replica, hub, Limits::default());
    let service = etcd_v3::service(gate, etcd_v3::Options::default());

    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let service = TowerToHyperService::new(service.clone());
        tokio::spawn(async move {
            let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            http2.serve_connection(TokioIo::new(socket), service).await
        });
    }
}
