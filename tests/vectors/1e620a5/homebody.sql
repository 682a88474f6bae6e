-- homebody.db of commit 1e620a5; see README.md
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
CREATE TABLE access_tokens (
	token_hash BLOB NOT NULL, 
	user_id TEXT NOT NULL, 
	device_id TEXT NOT NULL, 
	expires_ts INTEGER, 
	CONSTRAINT pk_access_tokens PRIMARY KEY (token_hash)
);
CREATE TABLE account_data (
	user_id TEXT NOT NULL, 
	room_id TEXT NOT NULL, 
	type TEXT NOT NULL, 
	content TEXT NOT NULL, 
	position INTEGER NOT NULL, 
	CONSTRAINT pk_account_data PRIMARY KEY (user_id, room_id, type)
);
CREATE TABLE clock (
	id INTEGER NOT NULL, 
	position INTEGER NOT NULL, 
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
CREATE TABLE events (
	position INTEGER NOT NULL, 
	event_id TEXT NOT NULL, 
	room_id TEXT NOT NULL, 
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
	device_id TEXT, 
	txn_id TEXT, 
	CONSTRAINT pk_events PRIMARY KEY (position), 
	CONSTRAINT uq_events_event_id UNIQUE (event_id)
);
CREATE TABLE filters (
	user_id TEXT NOT NULL, 
	filter_id TEXT NOT NULL, 
	definition TEXT NOT NULL, 
	CONSTRAINT pk_filters PRIMARY KEY (user_id, filter_id)
);
CREATE TABLE forgotten_rooms (
	user_id TEXT NOT NULL, 
	room_id TEXT NOT NULL, 
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
	sha256 TEXT, 
	CONSTRAINT pk_media PRIMARY KEY (origin, media_id)
);
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
CREATE TABLE refresh_tokens (
	token_hash BLOB NOT NULL, 
	user_id TEXT NOT NULL, 
	device_id TEXT NOT NULL, 
	access_token_hash BLOB NOT NULL, 
	replaced_by BLOB, 
	CONSTRAINT pk_refresh_tokens PRIMARY KEY (token_hash)
);
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
	position INTEGER NOT NULL, 
	CONSTRAINT pk_device_list_changes PRIMARY KEY (user_id)
);
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
	event TEXT NOT NULL, 
	CONSTRAINT pk_to_device_messages PRIMARY KEY (position)
);
CREATE TABLE to_device_transactions (
	user_id TEXT NOT NULL, 
	device_id TEXT NOT NULL, 
	event_type TEXT NOT NULL, 
	txn_id TEXT NOT NULL, 
	ts INTEGER NOT NULL, 
	CONSTRAINT pk_to_device_transactions PRIMARY KEY (user_id, device_id, event_type, txn_id)
);
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
	is_deleted BOOLEAN NOT NULL, 
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
CREATE TABLE outbox (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	kind TEXT NOT NULL, 
	destination TEXT NOT NULL, 
	payload JSON NOT NULL, 
	created_ts INTEGER NOT NULL, 
	tries INTEGER NOT NULL, 
	next_try_ts INTEGER NOT NULL
);
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
CREATE TABLE search_progress (
	id INTEGER NOT NULL, 
	position INTEGER NOT NULL, 
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
	user_id TEXT, 
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
CREATE TABLE directory_words (
	word TEXT NOT NULL, 
	user_id TEXT NOT NULL, 
	is_whole BOOLEAN NOT NULL, 
	CONSTRAINT pk_directory_words PRIMARY KEY (word, user_id)
)
 WITHOUT ROWID

;
CREATE TABLE login_tokens (
	token_hash BLOB NOT NULL, 
	user_id TEXT NOT NULL, 
	expires_ts INTEGER NOT NULL, 
	CONSTRAINT pk_login_tokens PRIMARY KEY (token_hash)
);
CREATE TABLE threepids (
	medium TEXT NOT NULL, 
	address TEXT NOT NULL, 
	user_id TEXT NOT NULL, 
	validated_ts INTEGER NOT NULL, 
	added_ts INTEGER NOT NULL, 
	CONSTRAINT pk_threepids PRIMARY KEY (medium, address)
);
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
CREATE TABLE "accounts" (
	user_id TEXT NOT NULL, 
	password_hash TEXT, 
	created_ts INTEGER NOT NULL, 
	is_admin BOOLEAN NOT NULL, 
	is_guest BOOLEAN NOT NULL, 
	deactivated_ts INTEGER, 
	is_locked BOOLEAN NOT NULL, 
	is_suspended BOOLEAN NOT NULL, 
	erased_position INTEGER, 
	CONSTRAINT pk_accounts PRIMARY KEY (user_id)
);
CREATE TABLE rooms (
	number INTEGER NOT NULL, 
	room_id TEXT NOT NULL, 
	version TEXT NOT NULL, 
	forward_extremities JSON NOT NULL, 
	depth INTEGER NOT NULL, 
	last_position INTEGER NOT NULL, 
	is_published BOOLEAN NOT NULL, 
	CONSTRAINT pk_rooms PRIMARY KEY (number), 
	CONSTRAINT uq_rooms_room_id UNIQUE (room_id)
);
CREATE TABLE state_intervals (
	room_number INTEGER NOT NULL, 
	type TEXT NOT NULL, 
	state_key TEXT NOT NULL, 
	from_position INTEGER NOT NULL, 
	to_position INTEGER NOT NULL, 
	event_position INTEGER NOT NULL, 
	membership TEXT, 
	CONSTRAINT pk_state_intervals PRIMARY KEY (room_number, type, state_key, from_position)
)
 WITHOUT ROWID

;
INSERT INTO alembic_version VALUES ('0012');
INSERT INTO access_tokens VALUES (X'409D675F7F81DA03BD98D062EA2A32EB5C9DEFCB50242F58301F0E7E33A78098', '@alice:localhost', 'ALICE', NULL);
INSERT INTO access_tokens VALUES (X'1DD94CB04B673DEA439124A5E0E1AEACF555BE4243C5341B3364B7F99BCD6008', '@bob:localhost', 'BOB', 1795957400377);
INSERT INTO account_data VALUES ('@alice:localhost', '', 'org.example.colour', '{"colour":"blue"}', 39);
INSERT INTO account_data VALUES ('@alice:localhost', '!BJMdDgGlckmjZYTKOc:localhost', 'm.tag', '{"tags":{"m.favourite":{"order":0.5}}}', 40);
INSERT INTO account_data VALUES ('@alice:localhost', '', 'm.push_rules', '{"rules":{"room":[{"rule_id":"!BJMdDgGlckmjZYTKOc:localhost","enabled":true,"actions":[]}]}}', 42);
INSERT INTO clock VALUES (1, 43);
INSERT INTO devices VALUES ('@alice:localhost', 'ALICE', NULL, 1795953800526, '127.0.0.1', 'Python-urllib/3.11');
INSERT INTO devices VALUES ('@bob:localhost', 'BOB', NULL, 1795953800515, '127.0.0.1', 'Python-urllib/3.11');
INSERT INTO events VALUES (10, '$vbSjdcbKgS8D1iy282WEZ2Hnn0FGJF2OTeMac47N7Xg', '!BJMdDgGlckmjZYTKOc:localhost', 'm.room.create', '', '@alice:localhost', 1795953800410, '{"auth_events":[],"content":{"creator":"@alice:localhost","room_version":"11"},"depth":1,"hashes":{"sha256":"t0LpdgXy54rDsxY0rYSCuN3CYXtFeX3GC05UM0DTnHY"},"origin_server_ts":1795953800410,"prev_events":[],"room_id":"!BJMdDgGlckmjZYTKOc:localhost","sender":"@alice:localhost","signatures":{"localhost":{"ed25519:a_98e4":"Du8v8YcPavq1QoHCFTZCQNKgPqcVux/FhvdS0xKBXAip6skdjssIDA7L4q2L+s1lqchVcQ2EHzhXjuIrJ1uOBQ"}},"state_key":"","type":"m.room.create"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO events VALUES (11, '$Kh3Z_rQKEG6Jd44_zWp-88CbqJ9PuwX0tvhSV5hbPd0', '!BJMdDgGlckmjZYTKOc:localhost', 'm.room.member', '@alice:localhost', '@alice:localhost', 1795953800410, '{"auth_events":["$vbSjdcbKgS8D1iy282WEZ2Hnn0FGJF2OTeMac47N7Xg"],"content":{"displayname":"Alice","membership":"join"},"depth":2,"hashes":{"sha256":"tkpGHXaMQTdhxQSA1X5Upngo3ACB3LnlUqwhKvD7buw"},"origin_server_ts":1795953800410,"prev_events":["$vbSjdcbKgS8D1iy282WEZ2Hnn0FGJF2OTeMac47N7Xg"],"room_id":"!BJMdDgGlckmjZYTKOc:localhost","sender":"@alice:localhost","signatures":{"localhost":{"ed25519:a_98e4":"DPHELKoAOJEPL7rfgdE4aR92kPrF1bCcO+67HtBeeV6q/XS2OxqaRSpWvxg/kwFdnCvWF3JSbHHOG+1PRy1/Cg"}},"state_key":"@alice:localhost","type":"m.room.member"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO events VALUES (12, '$vTUhZ0ArwhLsxQZ54aqwlR-RTcEM5u5RCWdXerLBQQU', '!BJMdDgGlckmjZYTKOc:localhost', 'm.room.power_levels', '', '@alice:localhost', 1795953800410, '{"auth_events":["$vbSjdcbKgS8D1iy282WEZ2Hnn0FGJF2OTeMac47N7Xg","$Kh3Z_rQKEG6Jd44_zWp-88CbqJ9PuwX0tvhSV5hbPd0"],"content":{"ban":50,"events":{"m.room.avatar":50,"m.room.canonical_alias":50,"m.room.encryption":100,"m.room.history_visibility":100,"m.room.name":50,"m.room.power_levels":100,"m.room.server_acl":100,"m.room.tombstone":100},"events_default":0,"invite":50,"kick":50,"redact":50,"state_default":50,"users":{"@alice:localhost":100},"users_default":0},"depth":3,"hashes":{"sha256":"i/Zloni8t5T9uz6h5SiKg7m3BOQvysOxIHBL8LGlRxg"},"origin_server_ts":1795953800410,"prev_events":["$Kh3Z_rQKEG6Jd44_zWp-88CbqJ9PuwX0tvhSV5hbPd0"],"room_id":"!BJMdDgGlckmjZYTKOc:localhost","sender":"@alice:localhost","signatures":{"localhost":{"ed25519:a_98e4":"FkoouDv6M8Wn0mWQNPCr1gqHB2bjjp1lcAPf+H5e+kUQN/7mEv9I4wKfmzQbBo/rLM2Ft86j4jJffj6g4/5FDg"}},"state_key":"","type":"m.room.power_levels"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO events VALUES (13, '$82tYX9V3oeadUXdQ06MMK37dFsmSC0D8_9aOhIVayVc', '!BJMdDgGlckmjZYTKOc:localhost', 'm.room.canonical_alias', '', '@alice:localhost', 1795953800410, '{"auth_events":["$vbSjdcbKgS8D1iy282WEZ2Hnn0FGJF2OTeMac47N7Xg","$vTUhZ0ArwhLsxQZ54aqwlR-RTcEM5u5RCWdXerLBQQU","$Kh3Z_rQKEG6Jd44_zWp-88CbqJ9PuwX0tvhSV5hbPd0"],"content":{"alias":"#kitchen:localhost"},"depth":4,"hashes":{"sha256":"eCR3368Oev/T5O/v2md2QhOlSEtundLKCh168ja+YnM"},"origin_server_ts":1795953800410,"prev_events":["$vTUhZ0ArwhLsxQZ54aqwlR-RTcEM5u5RCWdXerLBQQU"],"room_id":"!BJMdDgGlckmjZYTKOc:localhost","sender":"@alice:localhost","signatures":{"localhost":{"ed25519:a_98e4":"65fEA5hQ1MdzUmlYOulHcVlTMMTPJguYT8vmF7XzEvNi4HcdZFsZE4B/oUtTcoK/GE6Jwx77oJKktm4MS3poBA"}},"state_key":"","type":"m.room.canonical_alias"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO events VALUES (14, '$64yHSD0Om2IOMt88jVXyu2KBkp69d3jhMWr2pM0ZJNk', '!BJMdDgGlckmjZYTKOc:localhost', 'm.room.join_rules', '', '@alice:localhost', 1795953800410, '{"auth_events":["$vbSjdcbKgS8D1iy282WEZ2Hnn0FGJF2OTeMac47N7Xg","$vTUhZ0ArwhLsxQZ54aqwlR-RTcEM5u5RCWdXerLBQQU","$Kh3Z_rQKEG6Jd44_zWp-88CbqJ9PuwX0tvhSV5hbPd0"],"content":{"join_rule":"public"},"depth":5,"hashes":{"sha256":"xSYuZrgv2OA8Hx8HeuEKcyCzS53mjY9f6zE5cIUy+m4"},"origin_server_ts":1795953800410,"prev_events":["$82tYX9V3oeadUXdQ06MMK37dFsmSC0D8_9aOhIVayVc"],"room_id":"!BJMdDgGlckmjZYTKOc:localhost","sender":"@alice:localhost","signatures":{"localhost":{"ed25519:a_98e4":"+mDDLKCcBCiLXs2lwXhCFWHXvxHNswKJD7gXSyUPeZdA+in+5F06GwwqQXTwJlaRkJDURfjoebRKhwIOC3vGCA"}},"state_key":"","type":"m.room.join_rules"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO events VALUES (15, '$X9E60H_mks8LqDP8Ma6R1PtBD7fArdClcchklcWJ4r4', '!BJMdDgGlckmjZYTKOc:localhost', 'm.room.history_visibility', '', '@alice:localhost', 1795953800410, '{"auth_events":["$vbSjdcbKgS8D1iy282WEZ2Hnn0FGJF2OTeMac47N7Xg","$vTUhZ0ArwhLsxQZ54aqwlR-RTcEM5u5RCWdXerLBQQU","$Kh3Z_rQKEG6Jd44_zWp-88CbqJ9PuwX0tvhSV5hbPd0"],"content":{"history_visibility":"shared"},"depth":6,"hashes":{"sha256":"hV3Mm6BkoNAoje7TDnSRPE2boHmw6QFImZSkdTn6tIU"},"origin_server_ts":1795953800410,"prev_events":["$64yHSD0Om2IOMt88jVXyu2KBkp69d3jhMWr2pM0ZJNk"],"room_id":"!BJMdDgGlckmjZYTKOc:localhost","sender":"@alice:localhost","signatures":{"localhost":{"ed25519:a_98e4":"aOX+Y6ORDopZjUOnwvBDCOBK4xk9IhSyDgjMS+66kUrrDHDreR96obBkk5gFECECxnVRNbkQrXzQnWokE3LgBA"}},"state_key":"","type":"m.room.history_visibility"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO events VALUES (16, '$_kvMNMxayU77QRUrx933yEv1CUpFjbacK-uNzdtcoBc', '!BJMdDgGlckmjZYTKOc:localhost', 'm.room.guest_access', '', '@alice:localhost', 1795953800410, '{"auth_events":["$vbSjdcbKgS8D1iy282WEZ2Hnn0FGJF2OTeMac47N7Xg","$vTUhZ0ArwhLsxQZ54aqwlR-RTcEM5u5RCWdXerLBQQU","$Kh3Z_rQKEG6Jd44_zWp-88CbqJ9PuwX0tvhSV5hbPd0"],"content":{"guest_access":"forbidden"},"depth":7,"hashes":{"sha256":"qGv6PAGv4DTixAaOInY8ThTKFpuwJI16Xtr16ztwDAI"},"origin_server_ts":1795953800410,"prev_events":["$X9E60H_mks8LqDP8Ma6R1PtBD7fArdClcchklcWJ4r4"],"room_id":"!BJMdDgGlckmjZYTKOc:localhost","sender":"@alice:localhost","signatures":{"localhost":{"ed25519:a_98e4":"BhC5c3Qi1QWAIROkoXsc/wcpIztYbFgQkdJ9KVRYO9JxX6D+X9EKj+VdmjEDRmr2MTroBYK7uxae8WGV+c8IDg"}},"state_key":"","type":"m.room.guest_access"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO events VALUES (17, '$A5PcNJoe__ld2RlQmR5le4h5limFrosYWsereybJo9g', '!BJMdDgGlckmjZYTKOc:localhost', 'm.room.name', '', '@alice:localhost', 1795953800410, '{"auth_events":["$vbSjdcbKgS8D1iy282WEZ2Hnn0FGJF2OTeMac47N7Xg","$vTUhZ0ArwhLsxQZ54aqwlR-RTcEM5u5RCWdXerLBQQU","$Kh3Z_rQKEG6Jd44_zWp-88CbqJ9PuwX0tvhSV5hbPd0"],"content":{"name":"Kitchen"},"depth":8,"hashes":{"sha256":"Tk2pe9qUL55OpYbkP7CcEJeTEEfgzZ0/6zYYCik8hjU"},"origin_server_ts":1795953800410,"prev_events":["$_kvMNMxayU77QRUrx933yEv1CUpFjbacK-uNzdtcoBc"],"room_id":"!BJMdDgGlckmjZYTKOc:localhost","sender":"@alice:localhost","signatures":{"localhost":{"ed25519:a_98e4":"w/KwxGQioIjZz0T3ArGiBRy6VwhKeI6b7U+y8AElbKB1gi0aY0JzJ+0PgjoSSBhif/rEHy9y2UcIs9XwPayIBA"}},"state_key":"","type":"m.room.name"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO events VALUES (18, '$sLILulfrI7lBIprzVYzeUAcul89I4xkjZF3LJxjsJag', '!BJMdDgGlckmjZYTKOc:localhost', 'm.room.member', '@bob:localhost', '@alice:localhost', 1795953800410, '{"auth_events":["$vTUhZ0ArwhLsxQZ54aqwlR-RTcEM5u5RCWdXerLBQQU","$vbSjdcbKgS8D1iy282WEZ2Hnn0FGJF2OTeMac47N7Xg","$64yHSD0Om2IOMt88jVXyu2KBkp69d3jhMWr2pM0ZJNk","$Kh3Z_rQKEG6Jd44_zWp-88CbqJ9PuwX0tvhSV5hbPd0"],"content":{"membership":"invite"},"depth":9,"hashes":{"sha256":"HSkTSTQn0w56nrokx65GmWmqQIdjdTHMT+f5Go0Zdeo"},"origin_server_ts":1795953800410,"prev_events":["$A5PcNJoe__ld2RlQmR5le4h5limFrosYWsereybJo9g"],"room_id":"!BJMdDgGlckmjZYTKOc:localhost","sender":"@alice:localhost","signatures":{"localhost":{"ed25519:a_98e4":"e0O9NuGgBhyJxohC7gqibTptBQJlLkItHHUAbaE05UAa3C//6cSJhZXpRRc88psWZqVV9+QkQfJxXyj2pc5VDQ"}},"state_key":"@bob:localhost","type":"m.room.member"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO events VALUES (19, '$gt1VdYuOMvO3-laO1UaZwkl8Wujq5JRAdfEJ5HkPNXc', '!MJVvdMNsPQGhXdvcyV:localhost', 'm.room.create', '', '@alice:localhost', 1795953800425, '{"auth_events":[],"content":{"creator":"@alice:localhost","room_version":"11"},"depth":1,"hashes":{"sha256":"Y3+KldbxFM1ahhO5vBqMOhd+W15OjLwfGjXdGFzLpYY"},"origin_server_ts":1795953800425,"prev_events":[],"room_id":"!MJVvdMNsPQGhXdvcyV:localhost","sender":"@alice:localhost","signatures":{"localhost":{"ed25519:a_98e4":"UFvdcjouHfflGsZP8m8aUj0O8bFOkSMKiLJ5RuIGR5ZExfgOD4Z2xVzwLgwIsCDhQetpprCmjOcm35edKV7gBw"}},"state_key":"","type":"m.room.create"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO events VALUES (20, '$N39gNDudeSd4SmRhRGNfTFt0TP0REMAuciGT0TJI3oY', '!MJVvdMNsPQGhXdvcyV:localhost', 'm.room.member', '@alice:localhost', '@alice:localhost', 1795953800425, '{"auth_events":["$gt1VdYuOMvO3-laO1UaZwkl8Wujq5JRAdfEJ5HkPNXc"],"content":{"displayname":"Alice","membership":"join"},"depth":2,"hashes":{"sha256":"4zuIz01G/4eR+hXGg+YEemoMxooHDx8zQUpOiDEQrrI"},"origin_server_ts":1795953800425,"prev_events":["$gt1VdYuOMvO3-laO1UaZwkl8Wujq5JRAdfEJ5HkPNXc"],"room_id":"!MJVvdMNsPQGhXdvcyV:localhost","sender":"@alice:localhost","signatures":{"localhost":{"ed25519:a_98e4":"qwKRuwhPA21oIa1CYEDcx6jzOEjNrVV0+1u2Dx6cUi0XfTjI4tQJgd/u/p2gQORU2IdOhkSHQXAzrxffK09KCw"}},"state_key":"@alice:localhost","type":"m.room.member"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO events VALUES (21, '$9Q7wyguepnNIAEoBpWgXYH0-MbqV5SUy7xwytPXca_A', '!MJVvdMNsPQGhXdvcyV:localhost', 'm.room.power_levels', '', '@alice:localhost', 1795953800425, '{"auth_events":["$gt1VdYuOMvO3-laO1UaZwkl8Wujq5JRAdfEJ5HkPNXc","$N39gNDudeSd4SmRhRGNfTFt0TP0REMAuciGT0TJI3oY"],"content":{"ban":50,"events":{"m.room.avatar":50,"m.room.canonical_alias":50,"m.room.encryption":100,"m.room.history_visibility":100,"m.room.name":50,"m.room.power_levels":100,"m.room.server_acl":100,"m.room.tombstone":100},"events_default":0,"invite":0,"kick":50,"redact":50,"state_default":50,"users":{"@alice:localhost":100},"users_default":0},"depth":3,"hashes":{"sha256":"3C/2AQZGGfgoGyBsRXcpSN+QvqQ5vO4Dvvi+CirHhpU"},"origin_server_ts":1795953800425,"prev_events":["$N39gNDudeSd4SmRhRGNfTFt0TP0REMAuciGT0TJI3oY"],"room_id":"!MJVvdMNsPQGhXdvcyV:localhost","sender":"@alice:localhost","signatures":{"localhost":{"ed25519:a_98e4":"nhVGO9Nsc15fUVaLJtjHTCnziD3sXfPvhZagvIS8Ob0yEV2kDVT2NfeIvrCGo3VnTWUuHePr5tL9HRaLBtuXBA"}},"state_key":"","type":"m.room.power_levels"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO events VALUES (22, '$h_Yo3P72oTg7HMGQblmsHJOKjlBPg5NsFXFBs7eXdQg', '!MJVvdMNsPQGhXdvcyV:localhost', 'm.room.join_rules', '', '@alice:localhost', 1795953800425, '{"auth_events":["$gt1VdYuOMvO3-laO1UaZwkl8Wujq5JRAdfEJ5HkPNXc","$9Q7wyguepnNIAEoBpWgXYH0-MbqV5SUy7xwytPXca_A","$N39gNDudeSd4SmRhRGNfTFt0TP0REMAuciGT0TJI3oY"],"content":{"join_rule":"invite"},"depth":4,"hashes":{"sha256":"7auSjfdGNRELw80cM8w0jMM5tH3Tvs9YMk0/bvRpWvo"},"origin_server_ts":1795953800425,"prev_events":["$9Q7wyguepnNIAEoBpWgXYH0-MbqV5SUy7xwytPXca_A"],"room_id":"!MJVvdMNsPQGhXdvcyV:localhost","sender":"@alice:localhost","signatures":{"localhost":{"ed25519:a_98e4":"hku8+Uu7hfmdtB4rLzsuYrv9eOpTMaot4VkthNl/5qcMVeQ4pSkCdyP/pgmvSpdbK+bdEL4dOnmAcEQ+nmx9BA"}},"state_key":"","type":"m.room.join_rules"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO events VALUES (23, '$xcKx3wYPVjc-8KSWniKGZ9Zq7m2vlffP9Dw5TAuBH2s', '!MJVvdMNsPQGhXdvcyV:localhost', 'm.room.history_visibility', '', '@alice:localhost', 1795953800425, '{"auth_events":["$gt1VdYuOMvO3-laO1UaZwkl8Wujq5JRAdfEJ5HkPNXc","$9Q7wyguepnNIAEoBpWgXYH0-MbqV5SUy7xwytPXca_A","$N39gNDudeSd4SmRhRGNfTFt0TP0REMAuciGT0TJI3oY"],"content":{"history_visibility":"shared"},"depth":5,"hashes":{"sha256":"FgxOmH3Z4fpfAclbYUy3KKgfX16NwUTUVLXT88gB8qQ"},"origin_server_ts":1795953800425,"prev_events":["$h_Yo3P72oTg7HMGQblmsHJOKjlBPg5NsFXFBs7eXdQg"],"room_id":"!MJVvdMNsPQGhXdvcyV:localhost","sender":"@alice:localhost","signatures":{"localhost":{"ed25519:a_98e4":"pyRqVx/bJTJ5IVgrAkGSUbiC1lM14bNr+lwJjazwFOLPQ/e7sFxlTKw0dBkzcWGjAUrZcPMBx2b2qGhvyZxvDg"}},"state_key":"","type":"m.room.history_visibility"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO events VALUES (24, '$g36pn0Hl3P-GbemDJu2pX7lGODgHRKTTvqJiAFLpefo', '!MJVvdMNsPQGhXdvcyV:localhost', 'm.room.guest_access', '', '@alice:localhost', 1795953800425, '{"auth_events":["$gt1VdYuOMvO3-laO1UaZwkl8Wujq5JRAdfEJ5HkPNXc","$9Q7wyguepnNIAEoBpWgXYH0-MbqV5SUy7xwytPXca_A","$N39gNDudeSd4SmRhRGNfTFt0TP0REMAuciGT0TJI3oY"],"content":{"guest_access":"can_join"},"depth":6,"hashes":{"sha256":"MVCARijY5kxXAnjx5//nB0ge2HAOw+XUrBKk+/DdMd0"},"origin_server_ts":1795953800425,"prev_events":["$xcKx3wYPVjc-8KSWniKGZ9Zq7m2vlffP9Dw5TAuBH2s"],"room_id":"!MJVvdMNsPQGhXdvcyV:localhost","sender":"@alice:localhost","signatures":{"localhost":{"ed25519:a_98e4":"FeJ+t25gdu64rgxo9D6fbPLyZyrLZju6iy8HJo746IvLeB3IIixdjcywkxUzTCbQEPFCEf3gSP6m2afibRLNBA"}},"state_key":"","type":"m.room.guest_access"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO events VALUES (25, '$1EleA2lnAer5BmkI3JB-p4xkiRjeuBy7G6XjzbfaqGA', '!MJVvdMNsPQGhXdvcyV:localhost', 'm.room.encryption', '', '@alice:localhost', 1795953800425, '{"auth_events":["$gt1VdYuOMvO3-laO1UaZwkl8Wujq5JRAdfEJ5HkPNXc","$9Q7wyguepnNIAEoBpWgXYH0-MbqV5SUy7xwytPXca_A","$N39gNDudeSd4SmRhRGNfTFt0TP0REMAuciGT0TJI3oY"],"content":{"algorithm":"m.megolm.v1.aes-sha2"},"depth":7,"hashes":{"sha256":"vyORbNmj6kOKwpVYyLVMoiMM64m9pxyGa8U8Bv/yack"},"origin_server_ts":1795953800425,"prev_events":["$g36pn0Hl3P-GbemDJu2pX7lGODgHRKTTvqJiAFLpefo"],"room_id":"!MJVvdMNsPQGhXdvcyV:localhost","sender":"@alice:localhost","signatures":{"localhost":{"ed25519:a_98e4":"xjL6aKcT58uj4mWMUrCVfzgG6F3cjEMvMKYRMNvCQpRePnd3V2bhzzDe3JrTwzfTBFzMExJ5va2E8yOGmBNwDg"}},"state_key":"","type":"m.room.encryption"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO events VALUES (26, '$Hed3ApQrQKEIbAGx8jgBQE4mWn6gDfPNPOLPcMlytkw', '!MJVvdMNsPQGhXdvcyV:localhost', 'm.room.name', '', '@alice:localhost', 1795953800425, '{"auth_events":["$gt1VdYuOMvO3-laO1UaZwkl8Wujq5JRAdfEJ5HkPNXc","$9Q7wyguepnNIAEoBpWgXYH0-MbqV5SUy7xwytPXca_A","$N39gNDudeSd4SmRhRGNfTFt0TP0REMAuciGT0TJI3oY"],"content":{"name":"Secret"},"depth":8,"hashes":{"sha256":"t8JPGIQvIbCBsOQj39UGnKliU88KJ+sTnAxqIfIp6Zw"},"origin_server_ts":1795953800425,"prev_events":["$1EleA2lnAer5BmkI3JB-p4xkiRjeuBy7G6XjzbfaqGA"],"room_id":"!MJVvdMNsPQGhXdvcyV:localhost","sender":"@alice:localhost","signatures":{"localhost":{"ed25519:a_98e4":"xFgAjvh/uRZWb82tDcwJr7OM17c+dIa+E4Z6g42N6tSjiPthVx+O+jRe36dRiFO+CocSPXz86Mx7JNYt0GmPBw"}},"state_key":"","type":"m.room.name"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO events VALUES (27, '$WXSvaRoXq_qLwZjbJez6kBcEcYlXXetgNMAuk-i-yOE', '!MJVvdMNsPQGhXdvcyV:localhost', 'm.room.member', '@bob:localhost', '@alice:localhost', 1795953800425, '{"auth_events":["$9Q7wyguepnNIAEoBpWgXYH0-MbqV5SUy7xwytPXca_A","$gt1VdYuOMvO3-laO1UaZwkl8Wujq5JRAdfEJ5HkPNXc","$h_Yo3P72oTg7HMGQblmsHJOKjlBPg5NsFXFBs7eXdQg","$N39gNDudeSd4SmRhRGNfTFt0TP0REMAuciGT0TJI3oY"],"content":{"is_direct":true,"membership":"invite"},"depth":9,"hashes":{"sha256":"XkLlT7qfA/T6dnfxseqvL1ddHXGf5A+CC9Owb40sbjA"},"origin_server_ts":1795953800425,"prev_events":["$Hed3ApQrQKEIbAGx8jgBQE4mWn6gDfPNPOLPcMlytkw"],"room_id":"!MJVvdMNsPQGhXdvcyV:localhost","sender":"@alice:localhost","signatures":{"localhost":{"ed25519:a_98e4":"4LI6hy9qyAhaffs5/tYNA5VhWBZujda9AWvtmWvwFSzY4sF3WpIu2gSsCHgnEEpNPRVLoTvbJlOdnIaGKebQDw"}},"state_key":"@bob:localhost","type":"m.room.member"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO events VALUES (28, '$5NRKuCi_E8SfaJovMU5aNvatHet7f6w5PmHjZQJbAic', '!BJMdDgGlckmjZYTKOc:localhost', 'm.room.member', '@bob:localhost', '@bob:localhost', 1795953800430, '{"auth_events":["$vbSjdcbKgS8D1iy282WEZ2Hnn0FGJF2OTeMac47N7Xg","$vTUhZ0ArwhLsxQZ54aqwlR-RTcEM5u5RCWdXerLBQQU","$64yHSD0Om2IOMt88jVXyu2KBkp69d3jhMWr2pM0ZJNk","$sLILulfrI7lBIprzVYzeUAcul89I4xkjZF3LJxjsJag"],"content":{"membership":"join"},"depth":10,"hashes":{"sha256":"gAk1TkbuPrPTh4z/CzvPP6NV9OOc7CYujgMmkJfWGGM"},"origin_server_ts":1795953800430,"prev_events":["$sLILulfrI7lBIprzVYzeUAcul89I4xkjZF3LJxjsJag"],"room_id":"!BJMdDgGlckmjZYTKOc:localhost","sender":"@bob:localhost","signatures":{"localhost":{"ed25519:a_98e4":"d+/w2n9TM4v8AtXOGD8OBp+9TLmVWPE7jlHVOgLmLRtllyZHrYS/M/6kXM66+5C9tfHvJw/aJZgFPvtBbWbGDg"}},"state_key":"@bob:localhost","type":"m.room.member"}', 18, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO events VALUES (29, '$_FZgbCqvwnWd5Wq3njFYWs06xw3KBulXpRYGZPFLYWA', '!MJVvdMNsPQGhXdvcyV:localhost', 'm.room.member', '@bob:localhost', '@bob:localhost', 1795953800435, '{"auth_events":["$gt1VdYuOMvO3-laO1UaZwkl8Wujq5JRAdfEJ5HkPNXc","$9Q7wyguepnNIAEoBpWgXYH0-MbqV5SUy7xwytPXca_A","$h_Yo3P72oTg7HMGQblmsHJOKjlBPg5NsFXFBs7eXdQg","$WXSvaRoXq_qLwZjbJez6kBcEcYlXXetgNMAuk-i-yOE"],"content":{"membership":"join"},"depth":10,"hashes":{"sha256":"Af5aS9EoAkjuZBRa7BXbmR7yDDkNdkOz5aNVf65cwVQ"},"origin_server_ts":1795953800435,"prev_events":["$WXSvaRoXq_qLwZjbJez6kBcEcYlXXetgNMAuk-i-yOE"],"room_id":"!MJVvdMNsPQGhXdvcyV:localhost","sender":"@bob:localhost","signatures":{"localhost":{"ed25519:a_98e4":"BlkutZBi5NzxkGruabl3DegdGtqph99zjiWCuBhVm46ubP2GosUQq9ntJ9oWQvTfoQHG300F7zr6dGc3lVMdBw"}},"state_key":"@bob:localhost","type":"m.room.member"}', 27, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO events VALUES (30, '$IVLptJUJZmUcru-h87q51SHl0barUBCSxKQ9S32s7EY', '!BJMdDgGlckmjZYTKOc:localhost', 'm.room.message', NULL, '@alice:localhost', 1795953800438, '{"auth_events":["$vbSjdcbKgS8D1iy282WEZ2Hnn0FGJF2OTeMac47N7Xg","$vTUhZ0ArwhLsxQZ54aqwlR-RTcEM5u5RCWdXerLBQQU","$Kh3Z_rQKEG6Jd44_zWp-88CbqJ9PuwX0tvhSV5hbPd0"],"content":{"body":"Tea?","msgtype":"m.text"},"depth":11,"hashes":{"sha256":"eE6clxxM/K/2P7AYWOUe+UxPlMX3GodhDjnqaH4TGpo"},"origin_server_ts":1795953800438,"prev_events":["$5NRKuCi_E8SfaJovMU5aNvatHet7f6w5PmHjZQJbAic"],"room_id":"!BJMdDgGlckmjZYTKOc:localhost","sender":"@alice:localhost","signatures":{"localhost":{"ed25519:a_98e4":"5gfVMfc/WgOB8UvMC99hWctuAe1ErYJHLWgeI0gGpDJsc+8qdrN9IP1kSj10vPql6EwiHcbuWRXQeeCH5FodDg"}},"type":"m.room.message"}', NULL, NULL, NULL, NULL, NULL, 'ALICE', 't1');
INSERT INTO events VALUES (31, '$kQS2dBcnprbis8EmJR5VxtQkvXRVl0ovu5RM8HYC9Tk', '!BJMdDgGlckmjZYTKOc:localhost', 'm.room.message', NULL, '@alice:localhost', 1795953800443, '{"auth_events":["$vbSjdcbKgS8D1iy282WEZ2Hnn0FGJF2OTeMac47N7Xg","$vTUhZ0ArwhLsxQZ54aqwlR-RTcEM5u5RCWdXerLBQQU","$Kh3Z_rQKEG6Jd44_zWp-88CbqJ9PuwX0tvhSV5hbPd0"],"content":{"body":"* Tea or coffee?","m.new_content":{"body":"Tea or coffee?","msgtype":"m.text"},"m.relates_to":{"event_id":"$IVLptJUJZmUcru-h87q51SHl0barUBCSxKQ9S32s7EY","rel_type":"m.replace"},"msgtype":"m.text"},"depth":12,"hashes":{"sha256":"d6zbvgrn+R4pmFki4tTFBTCX/dGNM3u2XzUcxBUmq/E"},"origin_server_ts":1795953800443,"prev_events":["$IVLptJUJZmUcru-h87q51SHl0barUBCSxKQ9S32s7EY"],"room_id":"!BJMdDgGlckmjZYTKOc:localhost","sender":"@alice:localhost","signatures":{"localhost":{"ed25519:a_98e4":"JdH9AHXcJbWhj6qRcfibs3Q7Ux7ccAravsMx/cyGi++G4o1Ubh+d47i3uvb9zCvGLTOUoNx29M/23tVcIA1hDw"}},"type":"m.room.message"}', NULL, NULL, '$IVLptJUJZmUcru-h87q51SHl0barUBCSxKQ9S32s7EY', 'm.replace', NULL, 'ALICE', 't2');
INSERT INTO events VALUES (32, '$YC7DF5QY0Qk_PZbVY2oiIfXxvT1TQF4HE8J9vICGejk', '!BJMdDgGlckmjZYTKOc:localhost', 'm.reaction', NULL, '@bob:localhost', 1795953800446, '{"auth_events":["$vbSjdcbKgS8D1iy282WEZ2Hnn0FGJF2OTeMac47N7Xg","$vTUhZ0ArwhLsxQZ54aqwlR-RTcEM5u5RCWdXerLBQQU","$5NRKuCi_E8SfaJovMU5aNvatHet7f6w5PmHjZQJbAic"],"content":{"m.relates_to":{"event_id":"$IVLptJUJZmUcru-h87q51SHl0barUBCSxKQ9S32s7EY","key":"👍","rel_type":"m.annotation"}},"depth":13,"hashes":{"sha256":"zZd5jQsuN8azQ7krH+0/nnkopBnssFf94IYornOPlGA"},"origin_server_ts":1795953800446,"prev_events":["$kQS2dBcnprbis8EmJR5VxtQkvXRVl0ovu5RM8HYC9Tk"],"room_id":"!BJMdDgGlckmjZYTKOc:localhost","sender":"@bob:localhost","signatures":{"localhost":{"ed25519:a_98e4":"yMSEerle/2IMkvhWCzGdnQJi8WVUglObi5bVzIky6KMosx3DgRn2ka0Ew6hWVYsoGd95cQWiC5344HruyhKXAw"}},"type":"m.reaction"}', NULL, NULL, '$IVLptJUJZmUcru-h87q51SHl0barUBCSxKQ9S32s7EY', 'm.annotation', NULL, 'BOB', 't3');
INSERT INTO events VALUES (33, '$CEzWtPVLSG5v3fCscHYYjLolZY0FiTB5Dt22LiO6un4', '!BJMdDgGlckmjZYTKOc:localhost', 'm.room.message', NULL, '@bob:localhost', 1795953800451, '{"auth_events":["$vbSjdcbKgS8D1iy282WEZ2Hnn0FGJF2OTeMac47N7Xg","$vTUhZ0ArwhLsxQZ54aqwlR-RTcEM5u5RCWdXerLBQQU","$5NRKuCi_E8SfaJovMU5aNvatHet7f6w5PmHjZQJbAic"],"content":{"body":"Coffee, please","m.relates_to":{"event_id":"$IVLptJUJZmUcru-h87q51SHl0barUBCSxKQ9S32s7EY","rel_type":"m.thread"},"msgtype":"m.text"},"depth":14,"hashes":{"sha256":"bADOQWFFVFV08zL76OkFlXh0K6svDs22HWxKBrBFaqY"},"origin_server_ts":1795953800451,"prev_events":["$YC7DF5QY0Qk_PZbVY2oiIfXxvT1TQF4HE8J9vICGejk"],"room_id":"!BJMdDgGlckmjZYTKOc:localhost","sender":"@bob:localhost","signatures":{"localhost":{"ed25519:a_98e4":"VglRXISAb1B54I+ulP1x+sfNthW5se4opHzU5wndoxHBZo9yQjahg66OSZLtC/Ave3SagN/oCKuIWv5PXnxgCg"}},"type":"m.room.message"}', NULL, NULL, '$IVLptJUJZmUcru-h87q51SHl0barUBCSxKQ9S32s7EY', 'm.thread', '$IVLptJUJZmUcru-h87q51SHl0barUBCSxKQ9S32s7EY', 'BOB', 't4');
INSERT INTO events VALUES (34, '$CPGoObe_fbL7CpsX2uiYsIDpFjWMqvACJZA9ccPk22A', '!BJMdDgGlckmjZYTKOc:localhost', 'm.room.message', NULL, '@bob:localhost', 1795953800454, '{"auth_events":["$vbSjdcbKgS8D1iy282WEZ2Hnn0FGJF2OTeMac47N7Xg","$vTUhZ0ArwhLsxQZ54aqwlR-RTcEM5u5RCWdXerLBQQU","$5NRKuCi_E8SfaJovMU5aNvatHet7f6w5PmHjZQJbAic"],"content":{},"depth":15,"hashes":{"sha256":"KmzOONolmV7Ry1LjhdwJWYxPA4Rq2dtsUehjPw6Ot5s"},"origin_server_ts":1795953800454,"prev_events":["$CEzWtPVLSG5v3fCscHYYjLolZY0FiTB5Dt22LiO6un4"],"room_id":"!BJMdDgGlckmjZYTKOc:localhost","sender":"@bob:localhost","signatures":{"localhost":{"ed25519:a_98e4":"XAoKaoNHzVwmZqY3Ai5kVG57SkcBjkL87foN7P7+QY1b/hKeqOcSV2mBLZTgUlr11q7rwq8kB8a5IAXFeRx6CA"}},"type":"m.room.message"}', NULL, 35, '$IVLptJUJZmUcru-h87q51SHl0barUBCSxKQ9S32s7EY', 'm.thread', '$IVLptJUJZmUcru-h87q51SHl0barUBCSxKQ9S32s7EY', 'BOB', 't5');
INSERT INTO events VALUES (35, '$fChJLpchjOfYnFGIoVfMG9diCADkYefUamr23jdt-34', '!BJMdDgGlckmjZYTKOc:localhost', 'm.room.redaction', NULL, '@bob:localhost', 1795953800458, '{"auth_events":["$vbSjdcbKgS8D1iy282WEZ2Hnn0FGJF2OTeMac47N7Xg","$vTUhZ0ArwhLsxQZ54aqwlR-RTcEM5u5RCWdXerLBQQU","$5NRKuCi_E8SfaJovMU5aNvatHet7f6w5PmHjZQJbAic"],"content":{"redacts":"$CPGoObe_fbL7CpsX2uiYsIDpFjWMqvACJZA9ccPk22A"},"depth":16,"hashes":{"sha256":"Jv40Z+J9YiNtsDAlbsDGEf3X1hUh9Daf+JpXW7/JMZM"},"origin_server_ts":1795953800458,"prev_events":["$CPGoObe_fbL7CpsX2uiYsIDpFjWMqvACJZA9ccPk22A"],"room_id":"!BJMdDgGlckmjZYTKOc:localhost","sender":"@bob:localhost","signatures":{"localhost":{"ed25519:a_98e4":"K9gIDkeE12ZwP/sK+NxCsJjIRXE4R7xuZXhMDGCJE4y664xDJ+sv+Kxif18dS3ud3dToAqFZcGw8VEEZ4qkvDw"}},"type":"m.room.redaction"}', NULL, NULL, NULL, NULL, NULL, 'BOB', 'r1');
INSERT INTO events VALUES (36, '$LlwM98wwJNQbBYGzIGDDL_OGB5TLb7fqgwbuMir8niU', '!MJVvdMNsPQGhXdvcyV:localhost', 'm.room.encrypted', NULL, '@alice:localhost', 1795953800462, '{"auth_events":["$gt1VdYuOMvO3-laO1UaZwkl8Wujq5JRAdfEJ5HkPNXc","$9Q7wyguepnNIAEoBpWgXYH0-MbqV5SUy7xwytPXca_A","$N39gNDudeSd4SmRhRGNfTFt0TP0REMAuciGT0TJI3oY"],"content":{"algorithm":"m.megolm.v1.aes-sha2","ciphertext":"AwgAEnACgAkLmt6qF84IK","device_id":"ALICE","sender_key":"ccccccccccccccccccccccccccccccccccccccccccc","session_id":"s1"},"depth":11,"hashes":{"sha256":"mYbsqr6Ir7bZeDzws3JwwQtxKDrsYTl5GY/Bp8l8a4c"},"origin_server_ts":1795953800462,"prev_events":["$_FZgbCqvwnWd5Wq3njFYWs06xw3KBulXpRYGZPFLYWA"],"room_id":"!MJVvdMNsPQGhXdvcyV:localhost","sender":"@alice:localhost","signatures":{"localhost":{"ed25519:a_98e4":"cvHmrwQqVwel0xQVCx1cPc0T7teous38LvGnTqkN0G9oqyQVRlBhPNGfdhrHtz0wsZQynQ/MbtV7cE03tuVpAg"}},"type":"m.room.encrypted"}', NULL, NULL, NULL, NULL, NULL, 'ALICE', 't6');
INSERT INTO events VALUES (37, '$ovX0zco5Zv5peJnn3ifO33Qtz4ohAMkUimtMJbOquT0', '!BJMdDgGlckmjZYTKOc:localhost', 'm.room.message', NULL, '@alice:localhost', 1795953800469, '{"auth_events":["$vbSjdcbKgS8D1iy282WEZ2Hnn0FGJF2OTeMac47N7Xg","$vTUhZ0ArwhLsxQZ54aqwlR-RTcEM5u5RCWdXerLBQQU","$Kh3Z_rQKEG6Jd44_zWp-88CbqJ9PuwX0tvhSV5hbPd0"],"content":{"body":"recipe.txt","info":{"mimetype":"text/plain","size":12},"msgtype":"m.file","url":"mxc://localhost/m2tSoQop5d9KXi3ODfkEgbET"},"depth":17,"hashes":{"sha256":"n8MPWv9iiNWYSOewE9DHGwtj4Na4CRZ3AYbuehwxNUk"},"origin_server_ts":1795953800469,"prev_events":["$fChJLpchjOfYnFGIoVfMG9diCADkYefUamr23jdt-34"],"room_id":"!BJMdDgGlckmjZYTKOc:localhost","sender":"@alice:localhost","signatures":{"localhost":{"ed25519:a_98e4":"LEycmaKkTC0gKxl1wcA5gC4/nNb0A9Hi1zhgOQqoRhoaCT6T6HVkNpLflsqJlB+xqaMQBelLdgSoZj67qFf8AQ"}},"type":"m.room.message"}', NULL, NULL, NULL, NULL, NULL, 'ALICE', 't7');
INSERT INTO events VALUES (43, '$YuiH93vQjDKFy0o5I0F8cqAoY-n2qVVu01WVvc_Nbuk', '!MJVvdMNsPQGhXdvcyV:localhost', 'm.room.member', '@bob:localhost', '@bob:localhost', 1795953800500, '{"auth_events":["$gt1VdYuOMvO3-laO1UaZwkl8Wujq5JRAdfEJ5HkPNXc","$9Q7wyguepnNIAEoBpWgXYH0-MbqV5SUy7xwytPXca_A","$_FZgbCqvwnWd5Wq3njFYWs06xw3KBulXpRYGZPFLYWA"],"content":{"membership":"leave"},"depth":12,"hashes":{"sha256":"TaOhZgq7IbA75fk8if/qwqcWx4pwagI8BOVmQU5Q+gU"},"origin_server_ts":1795953800500,"prev_events":["$LlwM98wwJNQbBYGzIGDDL_OGB5TLb7fqgwbuMir8niU"],"room_id":"!MJVvdMNsPQGhXdvcyV:localhost","sender":"@bob:localhost","signatures":{"localhost":{"ed25519:a_98e4":"N2zc0jW3Jt7d/qrsJp9sZYwPgVhd2lyifH8/DOgnUn05ZuSUvgPWNHhxFELvVZiY55b/k9mpkI07jH9EtWd+DQ"}},"state_key":"@bob:localhost","type":"m.room.member"}', 29, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO filters VALUES ('@alice:localhost', '1', '{"room":{"timeline":{"limit":5}}}');
INSERT INTO media VALUES ('localhost', 'm2tSoQop5d9KXi3ODfkEgbET', '@alice:localhost', 1795953800466, NULL, 'text/plain', 'recipe.txt', 12, '9c846cd7bf04b87601532cb33b81ae437ff037ae577382d0b4d88b91c344ae91');
INSERT INTO notifications VALUES ('@alice:localhost', '!BJMdDgGlckmjZYTKOc:localhost', 33, '$IVLptJUJZmUcru-h87q51SHl0barUBCSxKQ9S32s7EY', 0, 0, '["notify",{"set_tweak":"sound","value":"default"}]');
INSERT INTO notifications VALUES ('@alice:localhost', '!BJMdDgGlckmjZYTKOc:localhost', 34, '$IVLptJUJZmUcru-h87q51SHl0barUBCSxKQ9S32s7EY', 0, 0, '["notify",{"set_tweak":"sound","value":"default"}]');
INSERT INTO notifications VALUES ('@bob:localhost', '!BJMdDgGlckmjZYTKOc:localhost', 37, 'main', 0, 0, '["notify",{"set_tweak":"sound","value":"default"}]');
INSERT INTO profile_fields VALUES ('@alice:localhost', 'displayname', '"Alice"');
INSERT INTO receipts VALUES ('!BJMdDgGlckmjZYTKOc:localhost', '@bob:localhost', 'm.read', '', '$IVLptJUJZmUcru-h87q51SHl0barUBCSxKQ9S32s7EY', 30, 1795953800471, 38);
INSERT INTO refresh_tokens VALUES (X'1F59D0AF8D659696153F97DF07938EC98A1DBDD7D9774EE5C74753C043B4C670', '@bob:localhost', 'BOB', X'1DD94CB04B673DEA439124A5E0E1AEACF555BE4243C5341B3364B7F99BCD6008', NULL);
INSERT INTO room_aliases VALUES ('#kitchen:localhost', '!BJMdDgGlckmjZYTKOc:localhost', '@alice:localhost');
INSERT INTO unread_counts VALUES ('@alice:localhost', '!BJMdDgGlckmjZYTKOc:localhost', '$IVLptJUJZmUcru-h87q51SHl0barUBCSxKQ9S32s7EY', 2, 0);
INSERT INTO unread_counts VALUES ('@bob:localhost', '!BJMdDgGlckmjZYTKOc:localhost', 'main', 1, 0);
INSERT INTO device_keys VALUES ('@alice:localhost', 'ALICE', '{"user_id":"@alice:localhost","device_id":"ALICE","algorithms":["m.olm.v1.curve25519-aes-sha2","m.megolm.v1.aes-sha2"],"keys":{"ed25519:ALICE":"4DVFhaiJxYzMqb/35IQ4PXKQIryR3Yd3z82TwF7GAQc","curve25519:ALICE":"ccccccccccccccccccccccccccccccccccccccccccc"},"signatures":{"@alice:localhost":{"ed25519:ALICE":"J3batHDJN5Pa0ixujHFypHkCic4Jo1s4Ob7qHGEP+6/vfufhnMTINA/6qDSbrWb1KZpCmkrkBHDWxGSRhiS1Ag"}}}');
INSERT INTO device_keys VALUES ('@bob:localhost', 'BOB', '{"user_id":"@bob:localhost","device_id":"BOB","algorithms":["m.olm.v1.curve25519-aes-sha2","m.megolm.v1.aes-sha2"],"keys":{"ed25519:BOB":"5tudCQ5vqTt9gR2DWoRDqABtFV4RAgUTJpDpy9U+pY4","curve25519:BOB":"ccccccccccccccccccccccccccccccccccccccccccc"},"signatures":{"@bob:localhost":{"ed25519:BOB":"K/SZRHxu9stCyks68V0WWpVpcKsJRLiR1UktVtS6BZv3Pz1YJcm8UjU0AfL1O7CIL8d+YOjXxdtv9PXMcGOpBQ"}}}');
INSERT INTO device_list_changes VALUES ('@alice:localhost', 9);
INSERT INTO device_list_changes VALUES ('@bob:localhost', 4);
INSERT INTO one_time_keys VALUES ('@alice:localhost', 'ALICE', 'signed_curve25519', 'AAAAAQ', '{"key":"ooooooooooooooooooooooooooooooooooooooooooo","signatures":{"@alice:localhost":{"ed25519:ALICE":"9pEw4mxEk6IswECH+jHT95V8VDjL1x2SsXi0HStIOzOGwt4NzqmnALrh7Jyl6l0gLMK5GiaMLzAs85WUKoemAw"}}}', 3);
INSERT INTO one_time_keys VALUES ('@bob:localhost', 'BOB', 'signed_curve25519', 'AAAAAQ', '{"key":"ooooooooooooooooooooooooooooooooooooooooooo","signatures":{"@bob:localhost":{"ed25519:BOB":"oCsnU2MtBUHUBw4JB/TLJmDlQAsAuYHGgIkqeQjGifXiryLOZtvKAGIHe/k9OKGJkXNW+79PBBU/+O4MQytBDQ"}}}', 5);
INSERT INTO to_device_messages VALUES (41, '@bob:localhost', 'BOB', '{"content":{"algorithm":"m.olm.v1.curve25519-aes-sha2","ciphertext":{}},"sender":"@alice:localhost","type":"m.room.encrypted"}');
INSERT INTO to_device_transactions VALUES ('@alice:localhost', 'ALICE', 'm.room.encrypted', 'd1', 1795953800491);
INSERT INTO backed_up_keys VALUES ('@alice:localhost', 1, '!MJVvdMNsPQGhXdvcyV:localhost', 's1', 0, 0, 1, '{"ciphertext":"x"}');
INSERT INTO cross_signing_keys VALUES ('@alice:localhost', 'master', 'bZX74cS1rXW49rk9eU4MuoODyNdCjd2x0oXJYCOvZ1g', '{"user_id":"@alice:localhost","usage":["master"],"keys":{"ed25519:bZX74cS1rXW49rk9eU4MuoODyNdCjd2x0oXJYCOvZ1g":"bZX74cS1rXW49rk9eU4MuoODyNdCjd2x0oXJYCOvZ1g"}}');
INSERT INTO cross_signing_keys VALUES ('@alice:localhost', 'self_signing', 'oM3LmmF1XeJFaJThm6oToMh/2GxviW6m4xvUzCSjdn0', '{"user_id":"@alice:localhost","usage":["self_signing"],"keys":{"ed25519:oM3LmmF1XeJFaJThm6oToMh/2GxviW6m4xvUzCSjdn0":"oM3LmmF1XeJFaJThm6oToMh/2GxviW6m4xvUzCSjdn0"}}');
INSERT INTO cross_signing_keys VALUES ('@alice:localhost', 'user_signing', 'JqnyB/npxMGtpe7CdBDsO911/KYQHcXdGURbrWzqkck', '{"user_id":"@alice:localhost","usage":["user_signing"],"keys":{"ed25519:JqnyB/npxMGtpe7CdBDsO911/KYQHcXdGURbrWzqkck":"JqnyB/npxMGtpe7CdBDsO911/KYQHcXdGURbrWzqkck"}}');
INSERT INTO key_backups VALUES ('@alice:localhost', 1, 'm.megolm_backup.v1.curve25519-aes-sha2', '{"public_key":"ppppppppppppppppppppppppppppppppppppppppppp"}', 1, 1, 0);
INSERT INTO key_signatures VALUES ('@alice:localhost', '@alice:localhost', 'oM3LmmF1XeJFaJThm6oToMh/2GxviW6m4xvUzCSjdn0', 'ed25519:bZX74cS1rXW49rk9eU4MuoODyNdCjd2x0oXJYCOvZ1g', 'GyO0eRD/h6XIXSi2/hlX4Lz5uJtVsD+8iS+dt3Jtu/XFCeRF6NqrnMGa0tuM5WFcA9TCBPCrEpXqo5OAE9e3BA', 7);
INSERT INTO key_signatures VALUES ('@alice:localhost', '@alice:localhost', 'JqnyB/npxMGtpe7CdBDsO911/KYQHcXdGURbrWzqkck', 'ed25519:bZX74cS1rXW49rk9eU4MuoODyNdCjd2x0oXJYCOvZ1g', 'g1nl/oEYRDTnM4G4whGnYDvcpqd0Rmgz3P6LpUcUxacwgk/jHhXd2Vjr2LNtO8oOY3dsBIBBtc1UYlkLlNZnBA', 8);
INSERT INTO search_progress VALUES (1, 43);
INSERT INTO search_index (rowid, body, name, topic) VALUES (17, '', 'Kitchen', '');
INSERT INTO search_index (rowid, body, name, topic) VALUES (26, '', 'Secret', '');
INSERT INTO search_index (rowid, body, name, topic) VALUES (30, 'Tea?', '', '');
INSERT INTO search_index (rowid, body, name, topic) VALUES (31, '* Tea or coffee?', '', '');
INSERT INTO search_index (rowid, body, name, topic) VALUES (33, 'Coffee, please', '', '');
INSERT INTO search_index (rowid, body, name, topic) VALUES (37, 'recipe.txt', '', '');
INSERT INTO directory_words VALUES ('alice', '@alice:localhost', 1);
INSERT INTO directory_words VALUES ('b', '@bob:localhost', 0);
INSERT INTO directory_words VALUES ('bob', '@bob:localhost', 1);
INSERT INTO directory_words VALUES ('ce', '@alice:localhost', 0);
INSERT INTO directory_words VALUES ('e', '@alice:localhost', 0);
INSERT INTO directory_words VALUES ('ice', '@alice:localhost', 0);
INSERT INTO directory_words VALUES ('lice', '@alice:localhost', 0);
INSERT INTO directory_words VALUES ('ob', '@bob:localhost', 0);
INSERT INTO accounts VALUES ('@alice:localhost', '$argon2id$v=19$m=8,t=1,p=1$Oed8rxUCIMQ4J2SMMWbMmQ$Po8onuXJdIFj9yeGpOeH9cq+5MvpAGalJV9B+hCrVn4', 1795953800368, 1, 0, NULL, 0, 0, NULL);
INSERT INTO accounts VALUES ('@bob:localhost', '$argon2id$v=19$m=8,t=1,p=1$+x8jJOS8936v9f6/19q7Vw$y5nHY/UXuSLDYhyHAQ9de7G6ZGqaBIL7SIEy+fPyO1Y', 1795953800377, 0, 0, NULL, 0, 0, NULL);
INSERT INTO rooms VALUES (1, '!BJMdDgGlckmjZYTKOc:localhost', '11', '["$ovX0zco5Zv5peJnn3ifO33Qtz4ohAMkUimtMJbOquT0"]', 17, 37, 0);
INSERT INTO rooms VALUES (2, '!MJVvdMNsPQGhXdvcyV:localhost', '11', '["$YuiH93vQjDKFy0o5I0F8cqAoY-n2qVVu01WVvc_Nbuk"]', 12, 43, 0);
INSERT INTO state_intervals VALUES (1, 'm.room.member', '@bob:localhost', 18, 28, 18, 'invite');
INSERT INTO state_intervals VALUES (1, 'm.room.create', '', 10, 9223372036854775807, 10, NULL);
INSERT INTO state_intervals VALUES (1, 'm.room.power_levels', '', 12, 9223372036854775807, 12, NULL);
INSERT INTO state_intervals VALUES (1, 'm.room.canonical_alias', '', 13, 9223372036854775807, 13, NULL);
INSERT INTO state_intervals VALUES (1, 'm.room.join_rules', '', 14, 9223372036854775807, 14, NULL);
INSERT INTO state_intervals VALUES (1, 'm.room.history_visibility', '', 15, 9223372036854775807, 15, NULL);
INSERT INTO state_intervals VALUES (1, 'm.room.guest_access', '', 16, 9223372036854775807, 16, NULL);
INSERT INTO state_intervals VALUES (1, 'm.room.name', '', 17, 9223372036854775807, 17, NULL);
INSERT INTO state_intervals VALUES (1, 'm.room.member', '@alice:localhost', 11, 9223372036854775807, 11, 'join');
INSERT INTO state_intervals VALUES (1, 'm.room.member', '@bob:localhost', 28, 9223372036854775807, 28, 'join');
INSERT INTO state_intervals VALUES (2, 'm.room.member', '@bob:localhost', 27, 29, 27, 'invite');
INSERT INTO state_intervals VALUES (2, 'm.room.member', '@bob:localhost', 29, 43, 29, 'join');
INSERT INTO state_intervals VALUES (2, 'm.room.create', '', 19, 9223372036854775807, 19, NULL);
INSERT INTO state_intervals VALUES (2, 'm.room.power_levels', '', 21, 9223372036854775807, 21, NULL);
INSERT INTO state_intervals VALUES (2, 'm.room.join_rules', '', 22, 9223372036854775807, 22, NULL);
INSERT INTO state_intervals VALUES (2, 'm.room.history_visibility', '', 23, 9223372036854775807, 23, NULL);
INSERT INTO state_intervals VALUES (2, 'm.room.guest_access', '', 24, 9223372036854775807, 24, NULL);
INSERT INTO state_intervals VALUES (2, 'm.room.encryption', '', 25, 9223372036854775807, 25, NULL);
INSERT INTO state_intervals VALUES (2, 'm.room.name', '', 26, 9223372036854775807, 26, NULL);
INSERT INTO state_intervals VALUES (2, 'm.room.member', '@alice:localhost', 20, 9223372036854775807, 20, 'join');
INSERT INTO state_intervals VALUES (2, 'm.room.member', '@bob:localhost', 43, 9223372036854775807, 43, 'leave');
CREATE INDEX ix_access_tokens_user_id_device_id ON access_tokens (user_id, device_id);
CREATE INDEX ix_account_data_user_id_position ON account_data (user_id, position);
CREATE INDEX ix_events_relates_to ON events (relates_to) WHERE relates_to IS NOT NULL;
CREATE INDEX ix_events_room_id_position ON events (room_id, position);
CREATE INDEX ix_events_room_id_origin_server_ts ON events (room_id, origin_server_ts);
CREATE INDEX ix_events_transaction ON events (sender, device_id, txn_id) WHERE txn_id IS NOT NULL;
CREATE INDEX ix_media_pending ON media (user_id) WHERE sha256 IS NULL;
CREATE INDEX ix_receipts_position ON receipts (position);
CREATE INDEX ix_receipts_room_id_position ON receipts (room_id, position);
CREATE INDEX ix_refresh_tokens_user_id_device_id ON refresh_tokens (user_id, device_id);
CREATE INDEX ix_room_aliases_room_id ON room_aliases (room_id);
CREATE INDEX ix_uia_sessions_created_ts ON uia_sessions (created_ts);
CREATE INDEX ix_device_list_changes_position ON device_list_changes (position);
CREATE INDEX ix_one_time_keys_order ON one_time_keys (user_id, device_id, algorithm, position, key_id);
CREATE INDEX ix_to_device_messages_user_id_device_id_position ON to_device_messages (user_id, device_id, position);
CREATE INDEX ix_to_device_transactions_ts ON to_device_transactions (ts);
CREATE INDEX ix_key_signatures_signer_user_id_position ON key_signatures (signer_user_id, position);
CREATE INDEX ix_outbox_kind_destination_id ON outbox (kind, destination, id);
CREATE INDEX ix_pushers_app_id_pushkey ON pushers (app_id, pushkey);
CREATE INDEX ix_events_threads ON events (room_id, position) WHERE rel_type = 'm.thread';
CREATE INDEX ix_openid_tokens_expires_ts ON openid_tokens (expires_ts);
CREATE INDEX ix_directory_words_user_id_word ON directory_words (user_id, word);
CREATE INDEX ix_login_tokens_user_id ON login_tokens (user_id);
CREATE INDEX ix_threepids_user_id ON threepids (user_id);
CREATE UNIQUE INDEX ix_validation_sessions_purpose_address_client_secret_hash ON validation_sessions (purpose, address, client_secret_hash);
CREATE INDEX ix_validation_sessions_created_ts ON validation_sessions (created_ts);
CREATE INDEX ix_url_previews_fetched_ts ON url_previews (fetched_ts);
CREATE INDEX ix_state_intervals_member ON state_intervals (state_key, to_position, from_position) WHERE membership IS NOT NULL;
CREATE INDEX ix_state_intervals_current ON state_intervals (room_number, to_position, membership, event_position);
DELETE FROM sqlite_sequence;
