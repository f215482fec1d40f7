//! A headless Chromium with one page, driven over the DevTools protocol: as much of it as the tests of the page need.
//!
//! Chromium takes commands from its file descriptor 3 and answers on 4, each message ended by a NUL. A shell gives it two pipes as
//! these, so it takes no port and no library. What the page complains of is kept for the test to look at.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{DEADLINE, wait_for};

const START: &str = "exec chromium \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1";
/// What Chromium needs as root and without a screen, and nothing that asks the network for something.
const FLAGS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
    "--hide-scrollbars",
];

pub struct Browser {
    process: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    session: Option<String>,
    sent: u64,
    complaints: Vec<String>,
    _profile: TempDir,
}

impl Browser {
    /// A page of this address, in a window of 1440 by 900.
    #[track_caller]
    pub fn open(address: &str) -> Browser {
        let profile = tempfile::tempdir().unwrap();
        let mut process = Command::new("sh")
            .args(["-c", START, "sh"])
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut browser = Browser {
            commands: process.stdin.take().unwrap(),
            messages: messages(process.stdout.take().unwrap()),
            process,
            session: None,
            sent: 0,
            complaints: Vec::new(),
            _profile: profile,
        };
        let page = wait_for("Chromium has a page", || {
            let targets = browser.call("Target.getTargets", json!({}));
            let mut targets = targets["targetInfos"].as_array().unwrap().iter();
            targets.find(|target| target["type"] == "page").cloned()
        });
        let target = json!({ "targetId": page["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", target);
        browser.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Runtime", "Log", "Page"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser.resize(1440, 900);
        browser.call("Page.navigate", json!({ "url": address }));
        browser
    }

    /// One command and its result.
    #[track_caller]
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.sent += 1;
        let mut command = json!({ "id": self.sent, "method": method, "params": params });
        if let Some(session) = &self.session {
            command["sessionId"] = json!(session);
        }
        // If it is gone, what it answered last is waited for in vain, which says so.
        drop(write!(self.commands, "{command}\0"));
        loop {
            let answer = self.messages.recv_timeout(DEADLINE);
            let answer = answer.unwrap_or_else(|error| {
                panic!("{method}: {error}; is chromium missing? apt-get install chromium")
            });
            if answer["id"] == self.sent {
                assert!(answer["error"].is_null(), "{method}: {answer:#}");
                return answer["result"].clone();
            }
            self.hear(&answer);
        }
    }

    fn hear(&mut self, event: &Value) {
        let params = &event["params"];
        let complaint = match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => &params["exceptionDetails"],
            // An answer such as 403 is one of the network, and no fault of the page.
            Some("Log.entryAdded") if params["entry"]["source"] != "network" => &params["entry"],
            _ => return,
        };
        self.complaints.push(complaint.to_string());
    }

    /// What this expression comes to, as JSON.
    #[track_caller]
    pub fn eval(&mut self, expression: &str) -> Value {
        let asked =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let result = self.call("Runtime.evaluate", asked);
        let thrown = &result["exceptionDetails"];
        assert!(thrown.is_null(), "{expression}: {thrown:#}");
        result["result"]["value"].clone()
    }

    /// Waits until this expression comes to something that is neither false nor empty, and gives it.
    #[track_caller]
    pub fn wait(&mut self, expression: &str) -> Value {
        wait_for(expression, || {
            let value = self.eval(expression);
            let nothing = [json!(null), json!(false), json!(""), json!(0)];
            (!nothing.contains(&value)).then_some(value)
        })
    }

    pub fn resize(&mut self, width: u32, height: u32) {
        let size =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", size);
    }

    /// A key such as `Tab`, `Enter` or `ArrowDown`.
    pub fn press(&mut self, key: &str) {
        let code = match key {
            "Tab" => 9,
            "Enter" => 13,
            "Escape" => 27,
            "ArrowDown" => 40,
            _ => panic!("{key} has no code here"),
        };
        let text = if key == "Enter" { "\r" } else { "" };
        for kind in ["keyDown", "keyUp"] {
            let mut event =
                json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            if kind == "keyDown" {
                event["text"] = json!(text);
            }
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// Text for what has the focus.
    pub fn type_text(&mut self, text: &str) {
        self.call("Input.insertText", json!({ "text": text }));
    }

    /// Errors in its script, and what its policy kept it from.
    #[track_caller]
    pub fn assert_no_complaints(&mut self) {
        // What was said before this answer has been heard then.
        self.eval("0");
        assert!(self.complaints.is_empty(), "{:#?}", self.complaints);
    }
}

/// What comes, until the end.
fn messages(answers: std::process::ChildStdout) -> Receiver<Value> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let messages = BufReader::new(answers).split(0).map_while(Result::ok);
        for message in messages {
            let message = serde_json::from_slice(&message).unwrap();
            if sender.send(message).is_err() {
                break;
            }
        }
    });
    receiver
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It takes its other processes along when it is asked, and when it is killed.
        drop(write!(
            self.commands,
            "{}\0",
            json!({ "id": 0, "method": "Browser.close" })
        ));
        drop(self.commands.flush());
        let ended = (0..200).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            matches!(self.process.try_wait(), Ok(Some(_)))
        });
        if !ended {
            drop(self.process.kill());
            drop(self.process.wait());
        }
    }
}
