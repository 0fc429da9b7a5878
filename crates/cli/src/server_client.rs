//! A server that runs already, as `tallow chat` and `tallow launch` find it and ask it.
use crate::running;
use anyhow::{Context, Result, bail};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::Value;

/// A server and how it is asked.
pub struct ServerClient {
    http: reqwest::Client,
    /// The address before `/v1`.
    pub url: String,
    key: Option<String>,
}

/// What a server says of one of its models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedModel {
    /// The name that requests give.
    pub id: String,
    /// The longest context, tokens. `None` where the server does not say it, or has not loaded the model yet.
    pub context: Option<u64>,
    /// Whether the chat template takes tools. `None` where the server does not say it.
    pub takes_tools: Option<bool>,
}

/// The address of the server that this user started last on this machine and that still runs.
pub fn last_started() -> Option<String> {
    running::servers().into_iter().next().map(|server| server.url)
}

impl ServerClient {
    /// A client for the server at `url`, as users write addresses. An empty key is none.
    ///
    /// Errors: certificates of this machine that cannot be read.
    pub fn new(url: &str, key: Option<String>) -> Result<Self> {
        let url = base_address(url);
        let http = hub::http_for(&url).build()?;
        Ok(ServerClient { http, url, key: key.filter(|key| !key.is_empty()) })
    }

    /// A client for a server of this process, before which no proxy stands.
    ///
    /// Errors: certificates of this machine that cannot be read.
    pub fn of_this_process(url: String, key: Option<String>) -> Result<Self> {
        Ok(ServerClient { http: hub::http().no_proxy().build()?, url, key })
    }

    /// The model of this name, or without a name the first that the server lists.
    ///
    /// Errors: no server there, one that refuses to tell, one without such a model.
    pub async fn model(&self, name: Option<&str>) -> Result<ListedModel> {
        let answer = self.authorised(self.http.get(format!("{}/v1/models", self.url))).send().await;
        let answer =
            answer.with_context(|| format!("no server answers at {} (`tallow serve MODEL` starts one)", self.url))?;
        let list: Value = checked(answer).await?.json().await.context("/v1/models is not JSON")?;
        model_of(&list, name).with_context(|| format!("the server at {}", self.url))
    }

    /// Sends a request of JSON.
    ///
    /// Errors: what the network gives, and the server's refusal.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Response> {
        checked(self.authorised(self.http.post(format!("{}{path}", self.url)).json(body)).send().await?).await
    }

    fn authorised(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }
}

/// The model of this name, or without a name the first of a server's list.
fn model_of(list: &Value, name: Option<&str>) -> Result<ListedModel> {
    let models: &[Value] = list["data"].as_array().map_or(&[], Vec::as_slice);
    let id = |model: &Value| model["id"].as_str().map(str::to_owned);
    let model = match name {
        Some(name) => models.iter().find(|model| model["id"] == name),
        None => models.first(),
    };
    let Some((model, id)) = model.and_then(|model| Some((model, id(model)?))) else {
        let ids: Vec<String> = models.iter().filter_map(id).collect();
        match name {
            Some(name) if !ids.is_empty() => bail!("--model is {name}; it serves {}", ids.join(", ")),
            _ => bail!("it names no model"),
        }
    };
    let takes_tools = model["meta"]["supports_tools"].as_bool();
    Ok(ListedModel { id, context: model["max_model_len"].as_u64(), takes_tools })
}

/// The address before `/v1`. Users give what they give to other clients: with `/v1` or an endpoint's path, with a slash
/// at the end, without a scheme.
fn base_address(url: &str) -> String {
    let mut base = url.trim().trim_end_matches('/');
    for end in ["/chat/completions", "/completions", "/models", "/v1"] {
        base = base.strip_suffix(end).unwrap_or(base).trim_end_matches('/');
    }
    if base.contains("://") { base.to_owned() } else { format!("http://{base}") }
}

/// The answer, or an error with the message that the server gives for its refusal.
async fn checked(answer: Response) -> Result<Response> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let body = answer.text().await.unwrap_or_default();
    let message =
        serde_json::from_str::<Value>(&body).ok().and_then(|v| v["error"]["message"].as_str().map(String::from));
    let hint = if status == StatusCode::UNAUTHORIZED { "; --api-key or TALLOW_API_KEY names the key" } else { "" };
    bail!("{status}: {}{hint}", message.unwrap_or(body));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_servers_address_is_understood_as_other_clients_have_it() {
        for url in [
            "http://host:8000",
            "http://host:8000/",
            "http://host:8000/v1",
            "http://host:8000/v1//",
            "http://host:8000/v1/chat/completions",
            "host:8000/v1/models",
        ] {
            assert_eq!(base_address(url), "http://host:8000", "{url}");
        }
        assert_eq!(base_address("https://host/llm/v1/"), "https://host/llm");
    }

    #[test]
    fn a_model_is_chosen_by_its_name() {
        let list = json!({"data": [
            {"id": "small", "max_model_len": 4096, "meta": {"supports_tools": false}}, {"id": "org/large"},
        ]});
        let small = ListedModel { id: "small".into(), context: Some(4096), takes_tools: Some(false) };
        assert_eq!(model_of(&list, None).unwrap(), small);
        assert_eq!(model_of(&list, Some("small")).unwrap(), small);
        let large = ListedModel { id: "org/large".into(), context: None, takes_tools: None };
        assert_eq!(model_of(&list, Some("org/large")).unwrap(), large);
        let error = model_of(&list, Some("larger")).unwrap_err().to_string();
        assert_eq!(error, "--model is larger; it serves small, org/large");
        assert!(model_of(&json!({"data": []}), None).is_err());
    }
}
