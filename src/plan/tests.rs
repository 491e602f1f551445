//! Tests of the pure core as a whole: objects of Kubernetes in, rows of the northbound database out.

mod all_nics;
mod attachments;
mod changes;
mod chassis;
mod edits;
mod examples;
mod fabric;
mod histories;
mod interleavings;
mod many_nics;
mod messages;
mod migrations;
mod nics;
mod objects;
mod ownership;
mod pools;
mod reading;
mod rules;
mod server;
mod services;
mod siblings;
mod switches;
mod told;
mod trouble;
mod waking;
mod world;
