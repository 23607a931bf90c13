//! ZooKeeper's AdminServer: its commands by name, answered as JSON.

use crate::http::GetOnly;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::any;
use zookeeper::ZooKeeper;
use zookeeper::admin::Command;

/// Who answers below `path`.
#[derive(Clone)]
struct Admin {
    zookeeper: ZooKeeper,
    path: String,
}

/// The commands, below `path`: ZooKeeper's `admin.commandURL`, `/commands` if empty.
pub fn commands(zookeeper: ZooKeeper, path: &str) -> Router {
    let path = match path.trim_matches('/') {
        "" => "/commands".to_owned(),
        path => format!("/{path}"),
    };
    Router::new()
        .route(&path, any(list))
        .route(&format!("{path}/"), any(list))
        .route(&format!("{path}/{{name}}"), any(answer))
        .with_state(Admin { zookeeper, path })
}

async fn list(_: GetOnly, State(admin): State<Admin>) -> Html<String> {
    let link = |command: &Command| {
        let (path, name) = (&admin.path, command.name());
        format!("<a href=\"{path}/{name}\">{name}</a>\n<br/>\n")
    };
    Html(Command::ALL.iter().map(link).collect())
}

async fn answer(_: GetOnly, State(admin): State<Admin>, Path(name): Path<String>) -> Response {
    let answer = admin.zookeeper.office().command(&name);
    let text = format!("{answer:#}\n");
    ([(CONTENT_TYPE, "application/json")], text).into_response()
}
