"""End-to-end encryption: device keys, cross-signing, key backup, and messages to devices."""
