-- What all migrations together make: a new database begins with it, and needs no Alembic.
-- Written by `make schema`; `make migrations` compares it with the migrations.

CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);

CREATE TABLE access_tokens (
	token_hash BLOB NOT NULL, 
	user_id TEXT NOT NULL, 
	device_id TEXT NOT NULL, 
	expires_ts INTEGER, issued_to TEXT, 
	CONSTRAINT pk_access_tokens PRIMARY KEY (token_hash)
);

CREATE INDEX ix_access_tokens_user_id_device_id ON access_tokens (user_id, device_id);

CREATE TABLE account_data (
	user_id TEXT NOT NULL, 
	room_id TEXT NOT NULL, 
	type TEXT NOT NULL, 
	content TEXT NOT NULL, 
	position INTEGER NOT NULL, size_bytes INTEGER DEFAULT '0' NOT NULL, 
	CONSTRAINT pk_account_data PRIMARY KEY (user_id, room_id, type)
);

CREATE INDEX ix_account_data_user_id_position ON account_data (user_id, position);

CREATE TABLE clock (
	id INTEGER NOT NULL, 
	position INTEGER NOT NULL, event_number INTEGER DEFAULT '0' NOT NULL, 
	CONSTRAINT pk_clock PRIMARY KEY (id)
);

CREATE TABLE devices (
	user_id TEXT NOT NULL, 
	device_id TEXT NOT NULL, 
	display_name TEXT, 
	last_seen_ts INTEGER, 
	last_seen_ip TEXT, 
	last_seen_user_agent TEXT, 
	CONSTRAINT pk_devices PRIMARY KEY (user_id, device_id)
);

CREATE TABLE filters (
	user_id TEXT NOT NULL, 
	filter_id TEXT NOT NULL, 
	definition TEXT NOT NULL, 
	CONSTRAINT pk_filters PRIMARY KEY (user_id, filter_id)
);

CREATE TABLE forgotten_rooms (
	user_id TEXT NOT NULL, 
	room_id TEXT NOT NULL, forgotten_ts INTEGER, 
	CONSTRAINT pk_forgotten_rooms PRIMARY KEY (user_id, room_id)
);

CREATE TABLE media (
	origin TEXT NOT NULL, 
	media_id TEXT NOT NULL, 
	user_id TEXT, 
	created_ts INTEGER NOT NULL, 
	unused_expires_ts INTEGER, 
	content_type TEXT, 
	file_name TEXT, 
	size_bytes INTEGER, 
	sha256 TEXT, last_used_ts INTEGER, is_protected BOOLEAN DEFAULT '0' NOT NULL, 
	CONSTRAINT pk_media PRIMARY KEY (origin, media_id)
);

CREATE INDEX ix_media_pending ON media (user_id) WHERE sha256 IS NULL;

CREATE TABLE notifications (
	user_id TEXT NOT NULL, 
	room_id TEXT NOT NULL, 
	event_position INTEGER NOT NULL, 
	thread_id TEXT NOT NULL, 
	is_highlight BOOLEAN NOT NULL, 
	is_read BOOLEAN NOT NULL, 
	actions TEXT NOT NULL, 
	CONSTRAINT pk_notifications PRIMARY KEY (user_id, room_id, event_position)
)
 WITHOUT ROWID

;

CREATE TABLE profile_fields (
	user_id TEXT NOT NULL, 
	name TEXT NOT NULL, 
	value TEXT NOT NULL, 
	CONSTRAINT pk_profile_fields PRIMARY KEY (user_id, name)
);

CREATE TABLE receipts (
	room_id TEXT NOT NULL, 
	user_id TEXT NOT NULL, 
	receipt_type TEXT NOT NULL, 
	thread_id TEXT NOT NULL, 
	event_id TEXT NOT NULL, 
	event_position INTEGER NOT NULL, 
	ts INTEGER NOT NULL, 
	position INTEGER NOT NULL, 
	CONSTRAINT pk_receipts PRIMARY KEY (room_id, user_id, receipt_type, thread_id)
);

CREATE INDEX ix_receipts_position ON receipts (position);

CREATE INDEX ix_receipts_room_id_position ON receipts (room_id, position);

CREATE TABLE refresh_tokens (
	token_hash BLOB NOT NULL, 
	user_id TEXT NOT NULL, 
	device_id TEXT NOT NULL, 
	access_token_hash BLOB NOT NULL, 
	replaced_by BLOB, 
	CONSTRAINT pk_refresh_tokens PRIMARY KEY (token_hash)
);

CREATE INDEX ix_refresh_tokens_user_id_device_id ON refresh_tokens (user_id, device_id);

CREATE TABLE registration_tokens (
	token TEXT NOT NULL, 
	uses_allowed INTEGER, 
	uses INTEGER NOT NULL, 
	expires_ts INTEGER, 
	created_ts INTEGER NOT NULL, 
	CONSTRAINT pk_registration_tokens PRIMARY KEY (token)
);

CREATE TABLE room_aliases (
	alias TEXT NOT NULL, 
	room_id TEXT NOT NULL, 
	creator TEXT NOT NULL, 
	CONSTRAINT pk_room_aliases PRIMARY KEY (alias)
);

CREATE INDEX ix_room_aliases_room_id ON room_aliases (room_id);

CREATE TABLE uia_sessions (
	session_hash BLOB NOT NULL, 
	created_ts INTEGER NOT NULL, 
	endpoint TEXT NOT NULL, 
	user_id TEXT, 
	params_mac BLOB, 
	completed JSON NOT NULL, 
	registration_token TEXT, threepid JSON, 
	CONSTRAINT pk_uia_sessions PRIMARY KEY (session_hash)
);

CREATE INDEX ix_uia_sessions_created_ts ON uia_sessions (created_ts);

CREATE TABLE unread_counts (
	user_id TEXT NOT NULL, 
	room_id TEXT NOT NULL, 
	thread_id TEXT NOT NULL, 
	notification_count INTEGER NOT NULL, 
	highlight_count INTEGER NOT NULL, 
	CONSTRAINT pk_unread_counts PRIMARY KEY (user_id, room_id, thread_id)
)
 WITHOUT ROWID

;

CREATE TABLE device_keys (
	user_id TEXT NOT NULL, 
	device_id TEXT NOT NULL, 
	device_keys TEXT NOT NULL, 
	CONSTRAINT pk_device_keys PRIMARY KEY (user_id, device_id)
);

CREATE TABLE device_list_changes (
	user_id TEXT NOT NULL, 
	position INTEGER NOT NULL, stream_id INTEGER, 
	CONSTRAINT pk_device_list_changes PRIMARY KEY (user_id)
);

CREATE INDEX ix_device_list_changes_position ON device_list_changes (position);

CREATE TABLE fallback_keys (
	user_id TEXT NOT NULL, 
	device_id TEXT NOT NULL, 
	algorithm TEXT NOT NULL, 
	key_id TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	is_used BOOLEAN NOT NULL, 
	CONSTRAINT pk_fallback_keys PRIMARY KEY (user_id, device_id, algorithm)
);

CREATE TABLE one_time_keys (
	user_id TEXT NOT NULL, 
	device_id TEXT NOT NULL, 
	algorithm TEXT NOT NULL, 
	key_id TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	position INTEGER NOT NULL, 
	CONSTRAINT pk_one_time_keys PRIMARY KEY (user_id, device_id, algorithm, key_id)
)
 WITHOUT ROWID

;

CREATE INDEX ix_one_time_keys_order ON one_time_keys (user_id, device_id, algorithm, position, key_id);

CREATE TABLE to_device_cut_answers (
	user_id TEXT NOT NULL, 
	device_id TEXT NOT NULL, 
	token INTEGER NOT NULL, 
	last_message INTEGER NOT NULL, 
	CONSTRAINT pk_to_device_cut_answers PRIMARY KEY (user_id, device_id, token)
);

CREATE TABLE to_device_messages (
	position INTEGER NOT NULL, 
	user_id TEXT NOT NULL, 
	device_id TEXT NOT NULL, 
	event TEXT NOT NULL, source TEXT DEFAULT '' NOT NULL, 
	CONSTRAINT pk_to_device_messages PRIMARY KEY (position)
);

CREATE INDEX ix_to_device_messages_user_id_device_id_position ON to_device_messages (user_id, device_id, position);

CREATE TABLE to_device_transactions (
	user_id TEXT NOT NULL, 
	device_id TEXT NOT NULL, 
	event_type TEXT NOT NULL, 
	txn_id TEXT NOT NULL, 
	ts INTEGER NOT NULL, 
	CONSTRAINT pk_to_device_transactions PRIMARY KEY (user_id, device_id, event_type, txn_id)
);

CREATE INDEX ix_to_device_transactions_ts ON to_device_transactions (ts);

CREATE TABLE backed_up_keys (
	user_id TEXT NOT NULL, 
	version INTEGER NOT NULL, 
	room_id TEXT NOT NULL, 
	session_id TEXT NOT NULL, 
	first_message_index INTEGER NOT NULL, 
	forwarded_count INTEGER NOT NULL, 
	is_verified BOOLEAN NOT NULL, 
	session_data TEXT NOT NULL, 
	CONSTRAINT pk_backed_up_keys PRIMARY KEY (user_id, version, room_id, session_id)
);

CREATE TABLE cross_signing_keys (
	user_id TEXT NOT NULL, 
	usage TEXT NOT NULL, 
	public_key TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	CONSTRAINT pk_cross_signing_keys PRIMARY KEY (user_id, usage)
);

CREATE TABLE dehydrated_devices (
	user_id TEXT NOT NULL, 
	device_id TEXT NOT NULL, 
	device_data TEXT NOT NULL, 
	CONSTRAINT pk_dehydrated_devices PRIMARY KEY (user_id)
);

CREATE TABLE key_backups (
	user_id TEXT NOT NULL, 
	version INTEGER NOT NULL, 
	algorithm TEXT NOT NULL, 
	auth_data TEXT NOT NULL, 
	etag INTEGER NOT NULL, 
	key_count INTEGER NOT NULL, 
	is_deleted BOOLEAN NOT NULL, size_bytes INTEGER DEFAULT '0' NOT NULL, 
	CONSTRAINT pk_key_backups PRIMARY KEY (user_id, version)
);

CREATE TABLE key_signatures (
	signed_user_id TEXT NOT NULL, 
	signer_user_id TEXT NOT NULL, 
	signed_key TEXT NOT NULL, 
	signer_key_id TEXT NOT NULL, 
	signature TEXT NOT NULL, 
	position INTEGER NOT NULL, 
	CONSTRAINT pk_key_signatures PRIMARY KEY (signed_user_id, signer_user_id, signed_key, signer_key_id)
);

CREATE INDEX ix_key_signatures_signer_user_id_position ON key_signatures (signer_user_id, position);

CREATE TABLE outbox (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	kind TEXT NOT NULL, 
	destination TEXT NOT NULL, 
	payload JSON NOT NULL, 
	created_ts INTEGER NOT NULL, 
	tries INTEGER NOT NULL, 
	next_try_ts INTEGER NOT NULL
);

CREATE INDEX ix_outbox_kind_destination_id ON outbox (kind, destination, id);

CREATE TABLE pushers (
	user_id TEXT NOT NULL, 
	app_id TEXT NOT NULL, 
	pushkey TEXT NOT NULL, 
	device_id TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	app_display_name TEXT NOT NULL, 
	device_display_name TEXT NOT NULL, 
	profile_tag TEXT, 
	lang TEXT NOT NULL, 
	data JSON NOT NULL, 
	pushkey_ts INTEGER NOT NULL, 
	CONSTRAINT pk_pushers PRIMARY KEY (user_id, app_id, pushkey)
)
 WITHOUT ROWID

;

CREATE INDEX ix_pushers_app_id_pushkey ON pushers (app_id, pushkey);

CREATE TABLE search_progress (
	id INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	CONSTRAINT pk_search_progress PRIMARY KEY (id)
);

CREATE VIRTUAL TABLE search_index USING fts5(body, name, topic, tokenize = 'unicode61 remove_diacritics 2');

CREATE TABLE reports (
	id INTEGER NOT NULL, 
	created_ts INTEGER NOT NULL, 
	reporter TEXT NOT NULL, 
	reason TEXT NOT NULL, 
	room_id TEXT, 
	event_id TEXT, 
	user_id TEXT, score INTEGER, 
	CONSTRAINT pk_reports PRIMARY KEY (id)
);

CREATE TABLE server_notice_rooms (
	user_id TEXT NOT NULL, 
	room_id TEXT NOT NULL, 
	CONSTRAINT pk_server_notice_rooms PRIMARY KEY (user_id)
);

CREATE TABLE accepted_terms (
	user_id TEXT NOT NULL, 
	document_id TEXT NOT NULL, 
	version TEXT NOT NULL, 
	accepted_ts INTEGER NOT NULL, 
	CONSTRAINT pk_accepted_terms PRIMARY KEY (user_id, document_id, version)
);

CREATE TABLE openid_tokens (
	token_hash BLOB NOT NULL, 
	user_id TEXT NOT NULL, 
	expires_ts INTEGER NOT NULL, 
	CONSTRAINT pk_openid_tokens PRIMARY KEY (token_hash)
);

CREATE INDEX ix_openid_tokens_expires_ts ON openid_tokens (expires_ts);

CREATE TABLE directory_words (
	word TEXT NOT NULL, 
	user_id TEXT NOT NULL, 
	is_whole BOOLEAN NOT NULL, 
	CONSTRAINT pk_directory_words PRIMARY KEY (word, user_id)
)
 WITHOUT ROWID

;

CREATE INDEX ix_directory_words_user_id_word ON directory_words (user_id, word);

CREATE TABLE login_tokens (
	token_hash BLOB NOT NULL, 
	user_id TEXT NOT NULL, 
	expires_ts INTEGER NOT NULL, browser_hash BLOB, 
	CONSTRAINT pk_login_tokens PRIMARY KEY (token_hash)
);

CREATE INDEX ix_login_tokens_user_id ON login_tokens (user_id);

CREATE TABLE threepids (
	medium TEXT NOT NULL, 
	address TEXT NOT NULL, 
	user_id TEXT NOT NULL, 
	validated_ts INTEGER NOT NULL, 
	added_ts INTEGER NOT NULL, 
	CONSTRAINT pk_threepids PRIMARY KEY (medium, address)
);

CREATE INDEX ix_threepids_user_id ON threepids (user_id);

CREATE TABLE validation_sessions (
	sid TEXT NOT NULL, 
	purpose TEXT NOT NULL, 
	address TEXT NOT NULL, 
	client_secret_hash BLOB NOT NULL, 
	token_hash BLOB, 
	send_attempt INTEGER NOT NULL, 
	next_link TEXT, 
	created_ts INTEGER NOT NULL, 
	validated_ts INTEGER, 
	CONSTRAINT pk_validation_sessions PRIMARY KEY (sid)
);

CREATE UNIQUE INDEX ix_validation_sessions_purpose_address_client_secret_hash ON validation_sessions (purpose, address, client_secret_hash);

CREATE INDEX ix_validation_sessions_created_ts ON validation_sessions (created_ts);

CREATE TABLE appservice_users (
	user_id TEXT NOT NULL, 
	service_id TEXT NOT NULL, 
	CONSTRAINT pk_appservice_users PRIMARY KEY (user_id)
);

CREATE TABLE network_rooms (
	service_id TEXT NOT NULL, 
	network_id TEXT NOT NULL, 
	room_id TEXT NOT NULL, 
	CONSTRAINT pk_network_rooms PRIMARY KEY (service_id, network_id, room_id)
);

CREATE TABLE url_previews (
	url TEXT NOT NULL, 
	fetched_ts INTEGER NOT NULL, 
	preview JSON NOT NULL, 
	problem TEXT, 
	image_sha256 TEXT, 
	CONSTRAINT pk_url_previews PRIMARY KEY (url)
);

CREATE INDEX ix_url_previews_fetched_ts ON url_previews (fetched_ts);

CREATE TABLE "accounts" (
	user_id TEXT NOT NULL, 
	password_hash TEXT, 
	created_ts INTEGER NOT NULL, 
	is_admin BOOLEAN NOT NULL, 
	is_guest BOOLEAN NOT NULL, 
	deactivated_ts INTEGER, 
	is_locked BOOLEAN NOT NULL, 
	is_suspended BOOLEAN NOT NULL, 
	erased_position INTEGER, is_shadow_banned BOOLEAN DEFAULT '0' NOT NULL, user_type TEXT, last_seen_ts INTEGER, expires_ts INTEGER, keys_replaceable_until_ts INTEGER, 
	CONSTRAINT pk_accounts PRIMARY KEY (user_id)
);

CREATE TABLE rooms (
	number INTEGER NOT NULL, 
	room_id TEXT NOT NULL, 
	version TEXT NOT NULL, 
	forward_extremities JSON NOT NULL, 
	depth INTEGER NOT NULL, 
	last_position INTEGER NOT NULL, 
	is_published BOOLEAN NOT NULL, state_reset_position INTEGER DEFAULT '0' NOT NULL, 
	CONSTRAINT pk_rooms PRIMARY KEY (number), 
	CONSTRAINT uq_rooms_room_id UNIQUE (room_id)
);

CREATE TABLE state_intervals (
	room_number INTEGER NOT NULL, 
	type TEXT NOT NULL, 
	state_key TEXT NOT NULL, 
	from_position INTEGER NOT NULL, 
	to_position INTEGER NOT NULL, 
	event_number INTEGER NOT NULL, 
	membership TEXT, 
	CONSTRAINT pk_state_intervals PRIMARY KEY (room_number, type, state_key, from_position)
)
 WITHOUT ROWID

;

CREATE INDEX ix_state_intervals_member ON state_intervals (state_key, to_position, from_position) WHERE membership IS NOT NULL;

CREATE TABLE claimed_one_time_keys (
	user_id TEXT NOT NULL, 
	device_id TEXT NOT NULL, 
	digest BLOB NOT NULL, 
	claimed_ts INTEGER NOT NULL, claimer TEXT DEFAULT '' NOT NULL, 
	CONSTRAINT pk_claimed_one_time_keys PRIMARY KEY (user_id, device_id, digest)
)
 WITHOUT ROWID

;

CREATE TABLE superseded_tokens (
	token_hash BLOB NOT NULL, 
	user_id TEXT NOT NULL, 
	device_id TEXT NOT NULL, 
	superseded_ts INTEGER NOT NULL, was_exchanged BOOLEAN DEFAULT '0' NOT NULL, 
	CONSTRAINT pk_superseded_tokens PRIMARY KEY (token_hash)
);

CREATE INDEX ix_superseded_tokens_user_id_device_id_superseded_ts ON superseded_tokens (user_id, device_id, superseded_ts);

CREATE TABLE shown_presence (
	user_id TEXT NOT NULL, 
	presence TEXT NOT NULL, 
	status_msg TEXT, 
	active_ts INTEGER, 
	CONSTRAINT pk_shown_presence PRIMARY KEY (user_id)
)
 WITHOUT ROWID

;

CREATE INDEX ix_account_data_user_id_size_bytes ON account_data (user_id, size_bytes);

CREATE INDEX ix_claimed_one_time_keys_user_id_device_id_claimer_claimed_ts ON claimed_one_time_keys (user_id, device_id, claimer, claimed_ts);

CREATE INDEX ix_to_device_messages_source ON to_device_messages (user_id, device_id, source, position);

CREATE INDEX ix_media_user_id_size_bytes ON media (user_id, size_bytes);

CREATE TABLE server_keys (
	server_name TEXT NOT NULL, 
	key_id TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	expired_ts INTEGER, 
	valid_until_ts INTEGER NOT NULL, 
	fetched_ts INTEGER NOT NULL, 
	response TEXT NOT NULL, 
	CONSTRAINT pk_server_keys PRIMARY KEY (server_name, key_id)
);

CREATE TABLE federation_log (
	position INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	also JSON, 
	CONSTRAINT pk_federation_log PRIMARY KEY (position)
);

CREATE TABLE destinations (
	server TEXT NOT NULL, 
	sent_upto INTEGER, 
	failing_since_ts INTEGER, 
	tries INTEGER NOT NULL, 
	next_try_ts INTEGER NOT NULL, 
	problem TEXT, 
	last_sent_ts INTEGER NOT NULL, 
	CONSTRAINT pk_destinations PRIMARY KEY (server)
);

CREATE INDEX ix_rooms_state_reset ON rooms (state_reset_position) WHERE state_reset_position > 0;

CREATE TABLE inbound_pdus (
	id INTEGER NOT NULL, 
	room_id TEXT NOT NULL, 
	origin TEXT NOT NULL, 
	event_id TEXT NOT NULL, 
	pdu TEXT NOT NULL, 
	received_ts INTEGER NOT NULL, 
	tries INTEGER NOT NULL, 
	next_try_ts INTEGER NOT NULL, 
	CONSTRAINT pk_inbound_pdus PRIMARY KEY (id), 
	CONSTRAINT uq_inbound_pdus_event_id UNIQUE (event_id)
);

CREATE INDEX ix_inbound_pdus_room_id_id ON inbound_pdus (room_id, id);

CREATE TABLE remote_users (
	user_id TEXT NOT NULL, 
	devices_stream_id INTEGER, 
	is_stale BOOLEAN NOT NULL, 
	master_key TEXT, 
	self_signing_key TEXT, 
	CONSTRAINT pk_remote_users PRIMARY KEY (user_id)
);

CREATE TABLE remote_devices (
	user_id TEXT NOT NULL, 
	device_id TEXT NOT NULL, 
	keys TEXT NOT NULL, 
	display_name TEXT, 
	CONSTRAINT pk_remote_devices PRIMARY KEY (user_id, device_id)
)
 WITHOUT ROWID

;

CREATE TABLE received_messages (
	origin TEXT NOT NULL, 
	message_id TEXT NOT NULL, 
	ts INTEGER NOT NULL, 
	CONSTRAINT pk_received_messages PRIMARY KEY (origin, message_id)
)
 WITHOUT ROWID

;

CREATE INDEX ix_received_messages_ts ON received_messages (ts);

CREATE TABLE gaps (
	room_number INTEGER NOT NULL, 
	event_id TEXT NOT NULL, 
	position INTEGER, 
	tries INTEGER NOT NULL, 
	next_try_ts INTEGER NOT NULL, 
	CONSTRAINT pk_gaps PRIMARY KEY (room_number, event_id)
)
 WITHOUT ROWID

;

CREATE INDEX ix_gaps_room_number_position ON gaps (room_number, position);

CREATE TABLE joining (
	room_id TEXT NOT NULL, 
	user_id TEXT NOT NULL, 
	event_id TEXT NOT NULL, 
	pdu TEXT NOT NULL, 
	servers JSON NOT NULL, 
	since_ts INTEGER NOT NULL, 
	CONSTRAINT pk_joining PRIMARY KEY (room_id, user_id)
);

CREATE TABLE partial_rooms (
	room_id TEXT NOT NULL, 
	event_id TEXT NOT NULL, 
	servers_in_room JSON NOT NULL, 
	servers JSON NOT NULL, 
	full_position INTEGER, 
	CONSTRAINT pk_partial_rooms PRIMARY KEY (room_id)
);

CREATE INDEX ix_partial_rooms_full_position ON partial_rooms (full_position);

CREATE TABLE stripped_state (
	room_id TEXT NOT NULL, 
	user_id TEXT NOT NULL, 
	events JSON NOT NULL, 
	servers JSON NOT NULL, 
	CONSTRAINT pk_stripped_state PRIMARY KEY (room_id, user_id)
);

CREATE TABLE event_auth (
	room_number INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	cites BLOB NOT NULL, 
	CONSTRAINT pk_event_auth PRIMARY KEY (room_number, number)
)
 WITHOUT ROWID

;

CREATE TABLE state_differences (
	number INTEGER NOT NULL, 
	room_number INTEGER NOT NULL, 
	parent INTEGER, 
	depth INTEGER NOT NULL, 
	CONSTRAINT pk_state_differences PRIMARY KEY (number)
);

CREATE INDEX ix_state_differences_room_number ON state_differences (room_number);

CREATE TABLE differing_entries (
	difference INTEGER NOT NULL, 
	type TEXT NOT NULL, 
	state_key TEXT NOT NULL, 
	event_number INTEGER, 
	CONSTRAINT pk_differing_entries PRIMARY KEY (difference, type, state_key)
)
 WITHOUT ROWID

;

CREATE TABLE remote_media (
	server TEXT NOT NULL, 
	media_id TEXT NOT NULL, 
	name TEXT NOT NULL, 
	size_bytes INTEGER NOT NULL, 
	content_type TEXT NOT NULL, 
	file_name TEXT, 
	last_used_ts INTEGER NOT NULL, sha256 TEXT, 
	CONSTRAINT pk_remote_media PRIMARY KEY (server, media_id)
);

CREATE INDEX ix_remote_media_last_used_ts_size_bytes ON remote_media (last_used_ts, size_bytes);

CREATE TABLE pending_redactions (
	target_id TEXT NOT NULL, 
	redaction INTEGER NOT NULL, 
	room_id TEXT NOT NULL, 
	CONSTRAINT pk_pending_redactions PRIMARY KEY (target_id, redaction)
)
 WITHOUT ROWID

;

CREATE INDEX ix_pending_redactions_room_id ON pending_redactions (room_id);

CREATE TABLE events (
	number INTEGER NOT NULL, 
	event_id TEXT NOT NULL, 
	room_id TEXT NOT NULL, 
	position INTEGER, 
	standing TEXT NOT NULL, 
	state_at INTEGER, 
	state_diff INTEGER, 
	type TEXT NOT NULL, 
	state_key TEXT, 
	sender TEXT NOT NULL, 
	origin_server_ts INTEGER NOT NULL, 
	pdu TEXT NOT NULL, 
	replaces INTEGER, 
	redacted_by INTEGER, 
	relates_to TEXT, 
	rel_type TEXT, 
	thread_id TEXT, 
	edit_of INTEGER, 
	annotation_key BLOB, 
	device_id TEXT, 
	txn_id TEXT, 
	CONSTRAINT pk_events PRIMARY KEY (number), 
	CONSTRAINT uq_events_event_id UNIQUE (event_id)
);

CREATE UNIQUE INDEX ix_events_room_id_position ON events (room_id, position);

CREATE INDEX ix_events_times ON events (room_id, origin_server_ts, position) WHERE position IS NOT NULL;

CREATE INDEX ix_events_threads ON events (room_id, position) WHERE rel_type = 'm.thread';

CREATE INDEX ix_events_relates_to_position ON events (relates_to, position) WHERE relates_to IS NOT NULL;

CREATE INDEX ix_events_relations ON events (relates_to, rel_type, sender) WHERE relates_to IS NOT NULL;

CREATE INDEX ix_events_annotations ON events (relates_to, sender, type, annotation_key) WHERE annotation_key IS NOT NULL;

CREATE INDEX ix_events_replies ON events (thread_id, rel_type, sender, position) WHERE rel_type = 'm.thread';

CREATE INDEX ix_events_references ON events (relates_to, room_id, position) WHERE rel_type = 'm.reference';

CREATE INDEX ix_events_edits ON events (edit_of, origin_server_ts, event_id, position) WHERE edit_of IS NOT NULL;

CREATE INDEX ix_events_replaces ON events (replaces) WHERE replaces IS NOT NULL;

CREATE INDEX ix_events_transaction ON events (sender, device_id, txn_id) WHERE txn_id IS NOT NULL;

CREATE INDEX ix_state_intervals_current ON state_intervals (room_number, to_position, membership, from_position, event_number);

CREATE INDEX ix_events_state_diff ON events (state_diff) WHERE state_diff IS NOT NULL;

CREATE INDEX ix_state_intervals_begun ON state_intervals (room_number, from_position);

CREATE TABLE audit_log (
	id INTEGER NOT NULL, 
	ts INTEGER NOT NULL, 
	actor TEXT NOT NULL, 
	action TEXT NOT NULL, 
	subject TEXT, 
	details JSON NOT NULL, 
	CONSTRAINT pk_audit_log PRIMARY KEY (id)
);

CREATE INDEX ix_audit_log_subject ON audit_log (subject);

CREATE TABLE blocked_rooms (
	room_id TEXT NOT NULL, 
	user_id TEXT NOT NULL, 
	blocked_ts INTEGER NOT NULL, 
	CONSTRAINT pk_blocked_rooms PRIMARY KEY (room_id)
);

CREATE TABLE browser_sessions (
	token_hash BLOB NOT NULL, 
	user_id TEXT NOT NULL, 
	created_ts INTEGER NOT NULL, 
	last_used_ts INTEGER NOT NULL, 
	ip TEXT NOT NULL, 
	user_agent TEXT NOT NULL, 
	CONSTRAINT pk_browser_sessions PRIMARY KEY (token_hash)
);

CREATE INDEX ix_browser_sessions_user_id ON browser_sessions (user_id);

CREATE INDEX ix_browser_sessions_created_ts ON browser_sessions (created_ts);

CREATE TABLE experimental_features (
	user_id TEXT NOT NULL, 
	name TEXT NOT NULL, 
	is_enabled BOOLEAN NOT NULL, 
	CONSTRAINT pk_experimental_features PRIMARY KEY (user_id, name)
);

CREATE TABLE external_ids (
	auth_provider TEXT NOT NULL, 
	external_id TEXT NOT NULL, 
	user_id TEXT NOT NULL, 
	CONSTRAINT pk_external_ids PRIMARY KEY (auth_provider, external_id)
);

CREATE INDEX ix_external_ids_user_id ON external_ids (user_id);

CREATE TABLE invitations (
	token_hash BLOB NOT NULL, 
	purpose TEXT NOT NULL, 
	user_id TEXT, 
	rooms JSON, 
	created_by TEXT NOT NULL, 
	created_ts INTEGER NOT NULL, 
	expires_ts INTEGER NOT NULL, 
	used_ts INTEGER, 
	CONSTRAINT pk_invitations PRIMARY KEY (token_hash)
);

CREATE INDEX ix_invitations_expires_ts ON invitations (expires_ts);

CREATE TABLE media_quotas (
	user_id TEXT NOT NULL, 
	max_bytes INTEGER NOT NULL, 
	CONSTRAINT pk_media_quotas PRIMARY KEY (user_id)
);

CREATE TABLE quarantined_media (
	origin TEXT NOT NULL, 
	media_id TEXT NOT NULL, 
	quarantined_by TEXT NOT NULL, 
	quarantined_ts INTEGER NOT NULL, 
	sha256 TEXT, 
	CONSTRAINT pk_quarantined_media PRIMARY KEY (origin, media_id)
);

CREATE INDEX ix_quarantined_media_sha256 ON quarantined_media (sha256);

CREATE TABLE rate_limit_overrides (
	user_id TEXT NOT NULL, 
	messages_per_second INTEGER NOT NULL, 
	burst_count INTEGER NOT NULL, 
	CONSTRAINT pk_rate_limit_overrides PRIMARY KEY (user_id)
);

CREATE TABLE tasks (
	id TEXT NOT NULL, 
	action TEXT NOT NULL, 
	resource_id TEXT, 
	status TEXT NOT NULL, 
	params JSON NOT NULL, 
	result JSON, 
	error TEXT, 
	created_ts INTEGER NOT NULL, 
	updated_ts INTEGER NOT NULL, 
	can_be_cancelled BOOLEAN DEFAULT '1' NOT NULL, 
	CONSTRAINT pk_tasks PRIMARY KEY (id)
);

CREATE INDEX ix_tasks_resource_id ON tasks (resource_id);

CREATE INDEX ix_tasks_status_created_ts ON tasks (status, created_ts);

CREATE INDEX ix_access_tokens_issued_to ON access_tokens (issued_to) WHERE issued_to IS NOT NULL;

CREATE INDEX ix_media_sha256 ON media (sha256);

CREATE INDEX ix_remote_media_sha256 ON remote_media (sha256);

CREATE INDEX ix_account_data_position ON account_data (position);

CREATE TABLE removed_rooms (
	room_id TEXT NOT NULL, 
	number INTEGER, 
	CONSTRAINT pk_removed_rooms PRIMARY KEY (room_id)
);

CREATE TABLE sign_on_attempts (
	state_hash BLOB NOT NULL, 
	browser_hash BLOB NOT NULL, 
	provider TEXT NOT NULL, 
	purpose TEXT NOT NULL, 
	target TEXT NOT NULL, 
	user_id TEXT, 
	created_ts INTEGER NOT NULL, 
	is_returned BOOLEAN NOT NULL, 
	identity JSON, 
	CONSTRAINT pk_sign_on_attempts PRIMARY KEY (state_hash)
);

CREATE INDEX ix_sign_on_attempts_created_ts ON sign_on_attempts (created_ts);

CREATE TABLE sign_on_sessions (
	id INTEGER NOT NULL, 
	provider TEXT NOT NULL, 
	subject TEXT NOT NULL, 
	sid TEXT, 
	user_id TEXT NOT NULL, 
	browser_hash BLOB, 
	device_id TEXT, 
	created_ts INTEGER NOT NULL, 
	CONSTRAINT pk_sign_on_sessions PRIMARY KEY (id)
);

CREATE INDEX ix_sign_on_sessions_provider_subject ON sign_on_sessions (provider, subject);

CREATE INDEX ix_sign_on_sessions_user_id ON sign_on_sessions (user_id);

CREATE INDEX ix_sign_on_sessions_browser_hash ON sign_on_sessions (browser_hash);

CREATE TABLE delayed_events (
	delay_id TEXT NOT NULL, 
	user_id TEXT NOT NULL, 
	device_id TEXT NOT NULL, 
	txn_id TEXT, 
	room_id TEXT NOT NULL, 
	type TEXT NOT NULL, 
	state_key TEXT, 
	content JSON NOT NULL, 
	origin_server_ts INTEGER, 
	sticky_ms INTEGER, 
	delay_ms INTEGER NOT NULL, 
	scheduled_ts INTEGER NOT NULL, 
	due_ts INTEGER, 
	finalised_ts INTEGER, 
	event_id TEXT, 
	error JSON, 
	CONSTRAINT pk_delayed_events PRIMARY KEY (delay_id)
);

CREATE INDEX ix_delayed_events_user_id_due_ts ON delayed_events (user_id, due_ts);

CREATE INDEX ix_delayed_events_due_ts ON delayed_events (due_ts) WHERE due_ts IS NOT NULL;

CREATE INDEX ix_delayed_events_finalised_ts ON delayed_events (finalised_ts) WHERE finalised_ts IS NOT NULL;

CREATE INDEX ix_delayed_events_user_id_finalised_ts ON delayed_events (user_id, finalised_ts) WHERE finalised_ts IS NOT NULL;

CREATE INDEX ix_delayed_events_transaction ON delayed_events (user_id, device_id, txn_id) WHERE txn_id IS NOT NULL;

CREATE TABLE profile_changes (
	user_id TEXT NOT NULL, 
	name TEXT NOT NULL, 
	position INTEGER NOT NULL, 
	CONSTRAINT pk_profile_changes PRIMARY KEY (user_id, name)
)
 WITHOUT ROWID

;

CREATE INDEX ix_profile_changes_position ON profile_changes (position);

CREATE TABLE thread_subscriptions (
	user_id TEXT NOT NULL, 
	room_id TEXT NOT NULL, 
	thread_id TEXT NOT NULL, 
	is_subscribed BOOLEAN NOT NULL, 
	is_automatic BOOLEAN NOT NULL, 
	unsubscribed_position INTEGER NOT NULL, 
	position INTEGER NOT NULL, 
	CONSTRAINT pk_thread_subscriptions PRIMARY KEY (user_id, room_id, thread_id)
)
 WITHOUT ROWID

;

CREATE INDEX ix_thread_subscriptions_user_id_position ON thread_subscriptions (user_id, position);

CREATE INDEX ix_thread_subscriptions_room_id ON thread_subscriptions (room_id);

CREATE TABLE oauth_clients (
	client_id TEXT NOT NULL, 
	registration JSON NOT NULL, 
	last_used_ts INTEGER NOT NULL, 
	CONSTRAINT pk_oauth_clients PRIMARY KEY (client_id)
);

CREATE INDEX ix_oauth_clients_last_used_ts ON oauth_clients (last_used_ts);

CREATE TABLE oauth_codes (
	code_hash BLOB NOT NULL, 
	client_id TEXT NOT NULL, 
	user_id TEXT NOT NULL, 
	device_id TEXT NOT NULL, 
	scope TEXT NOT NULL, 
	redirect_uri TEXT NOT NULL, 
	code_challenge TEXT NOT NULL, 
	expires_ts INTEGER NOT NULL, 
	is_used BOOLEAN NOT NULL, 
	session_hash BLOB NOT NULL, 
	CONSTRAINT pk_oauth_codes PRIMARY KEY (code_hash)
);

CREATE INDEX ix_oauth_codes_expires_ts ON oauth_codes (expires_ts);

CREATE TABLE oauth_consents (
	user_id TEXT NOT NULL, 
	client_id TEXT NOT NULL, 
	granted_ts INTEGER NOT NULL, 
	CONSTRAINT pk_oauth_consents PRIMARY KEY (user_id, client_id)
);

CREATE INDEX ix_oauth_consents_client_id ON oauth_consents (client_id);

CREATE TABLE oauth_device_codes (
	device_code_hash BLOB NOT NULL, 
	user_code TEXT NOT NULL, 
	client_id TEXT NOT NULL, 
	device_id TEXT NOT NULL, 
	scope TEXT NOT NULL, 
	expires_ts INTEGER NOT NULL, 
	interval_ms INTEGER NOT NULL, 
	last_poll_ts INTEGER, 
	user_id TEXT, 
	is_denied BOOLEAN NOT NULL, 
	session_hash BLOB, 
	CONSTRAINT pk_oauth_device_codes PRIMARY KEY (device_code_hash)
);

CREATE UNIQUE INDEX ix_oauth_device_codes_user_code ON oauth_device_codes (user_code);

CREATE INDEX ix_oauth_device_codes_expires_ts ON oauth_device_codes (expires_ts);

CREATE TABLE oauth_sessions (
	user_id TEXT NOT NULL, 
	device_id TEXT NOT NULL, 
	client_id TEXT NOT NULL, 
	scope TEXT NOT NULL, 
	CONSTRAINT pk_oauth_sessions PRIMARY KEY (user_id, device_id)
);

CREATE INDEX ix_oauth_sessions_client_id ON oauth_sessions (client_id);

CREATE TABLE sticky_events (
	number INTEGER NOT NULL, 
	room_id TEXT NOT NULL, 
	position INTEGER, 
	sender TEXT NOT NULL, 
	until_ts INTEGER NOT NULL, 
	CONSTRAINT pk_sticky_events PRIMARY KEY (number)
);

CREATE INDEX ix_sticky_events_position ON sticky_events (position);

CREATE INDEX ix_sticky_events_until_ts ON sticky_events (until_ts);

CREATE INDEX ix_sticky_events_room_id_sender ON sticky_events (room_id, sender);

CREATE TABLE sync_connections (
	user_id TEXT NOT NULL, 
	device_id TEXT NOT NULL, 
	conn_id TEXT NOT NULL, 
	secret BLOB NOT NULL, 
	number INTEGER NOT NULL, 
	position INTEGER NOT NULL, 
	state BLOB NOT NULL, 
	written_ts INTEGER NOT NULL, 
	CONSTRAINT pk_sync_connections PRIMARY KEY (user_id, device_id, conn_id)
);

CREATE INDEX ix_sync_connections_written_ts ON sync_connections (written_ts);

INSERT INTO alembic_version VALUES ('0025');

INSERT INTO clock VALUES (1, 1, 1);
