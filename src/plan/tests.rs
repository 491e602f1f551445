//! Tests of the pure core as a whole: objects of Kubernetes in, rows of the northbound database out.

mod all_nics;
mod attachments;
mod changes;
mod edits;
mod examples;
mod histories;
mod interleavings;
mod migrations;
mod nics;
mod pools;
mod reading;
mod rules;
mod server;
mod services;
mod siblings;
mod trouble;
mod waking;
mod world;
