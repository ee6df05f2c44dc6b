BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0005');
CREATE TABLE batch_results (
	number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	batch_id VARCHAR NOT NULL, 
	line INTEGER NOT NULL, 
	failed BOOLEAN NOT NULL, 
	content VARCHAR NOT NULL, 
	CONSTRAINT one_result_a_line UNIQUE (batch_id, line), 
	FOREIGN KEY(batch_id) REFERENCES batches (id)
);
INSERT INTO "batch_results" VALUES(1,'batch_zZVpu64aDJQuSXz5LneLCZLJ',1,0,'{}');
CREATE TABLE batches (
	number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	id VARCHAR NOT NULL, 
	endpoint VARCHAR NOT NULL, 
	input_file_id VARCHAR NOT NULL, 
	completion_window VARCHAR NOT NULL, 
	status VARCHAR NOT NULL, 
	model VARCHAR, 
	errors JSON, 
	output_file_id VARCHAR, 
	error_file_id VARCHAR, 
	created_at INTEGER NOT NULL, 
	in_progress_at INTEGER, 
	expires_at INTEGER NOT NULL, 
	finalizing_at INTEGER, 
	completed_at INTEGER, 
	failed_at INTEGER, 
	expired_at INTEGER, 
	cancelling_at INTEGER, 
	cancelled_at INTEGER, 
	total INTEGER NOT NULL, 
	completed INTEGER NOT NULL, 
	failed INTEGER NOT NULL, 
	usage JSON NOT NULL, 
	metadata JSON, 
	output_seconds INTEGER, 
	UNIQUE (id)
);
INSERT INTO "batches" VALUES(1,'batch_zZVpu64aDJQuSXz5LneLCZLJ','/v1/chat/completions','file-mbdUmXGNvRhhWSerRNPW2RLz','24h','validating',NULL,NULL,NULL,NULL,1795682683,NULL,1795769083,NULL,NULL,NULL,NULL,NULL,NULL,0,1,0,'{"input_tokens": 0, "cached_tokens": 0, "output_tokens": 0, "reasoning_tokens": 0}',NULL,NULL);
CREATE TABLE chat_completions (
	number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	id VARCHAR NOT NULL, 
	created_at INTEGER NOT NULL, 
	model VARCHAR NOT NULL, 
	metadata JSON, 
	completion JSON NOT NULL, 
	messages JSON NOT NULL, 
	UNIQUE (id)
);
INSERT INTO "chat_completions" VALUES(1,'chatcmpl-old',1790000000,'gpt-3.5-turbo-0125',NULL,'{"id": "chatcmpl-old"}','[{"id": "chatcmpl-old-0", "role": "user", "content": "hi"}]');
CREATE TABLE checkpoint_permissions (
	number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	id VARCHAR NOT NULL, 
	created_at INTEGER NOT NULL, 
	model VARCHAR NOT NULL, 
	project_id VARCHAR NOT NULL, 
	CONSTRAINT one_permission_a_project UNIQUE (model, project_id), 
	UNIQUE (id)
);
INSERT INTO "checkpoint_permissions" VALUES(1,'cp_H0OGPZKLAVgp0ZXOhFIQYPVZ',1795682683,'ft:gpt-3.5-turbo-0125:local:emoji-v1:abcdefgh','team');
CREATE TABLE creations (
	number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	subject VARCHAR NOT NULL, 
	path VARCHAR NOT NULL, 
	digest VARCHAR NOT NULL, 
	"key" VARCHAR, 
	attempt INTEGER NOT NULL, 
	asked_at FLOAT NOT NULL, 
	answered_at FLOAT, 
	UNIQUE (subject)
);
INSERT INTO "creations" VALUES(1,'ftjob-B33EXVtt5QTcNnCC4ffZvb5h','/v1/fine_tuning/jobs','digest','key-1',0,1.79568268393654680253e+09,NULL);
CREATE TABLE files (
	number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	id VARCHAR NOT NULL, 
	bytes INTEGER NOT NULL, 
	created_at INTEGER NOT NULL, 
	filename VARCHAR NOT NULL, 
	purpose VARCHAR NOT NULL, 
	status VARCHAR NOT NULL, 
	status_details VARCHAR, 
	expires_at INTEGER, 
	sha256 VARCHAR NOT NULL, 
	UNIQUE (id)
);
INSERT INTO "files" VALUES(1,'file-vJsaRVWBxEb7fllMnPeBcMn3',3,1795682683,'train.jsonl','fine-tune','processed',NULL,NULL,'ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356');
INSERT INTO "files" VALUES(2,'file-mbdUmXGNvRhhWSerRNPW2RLz',3,1795682683,'batch.jsonl','batch','processed',NULL,NULL,'ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356');
CREATE TABLE fine_tuned_models (
	number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	name VARCHAR NOT NULL, 
	created_at INTEGER NOT NULL, 
	job_id VARCHAR NOT NULL, 
	base VARCHAR NOT NULL, 
	hosted_name VARCHAR NOT NULL, 
	adapter VARCHAR NOT NULL, 
	step INTEGER, 
	UNIQUE (name)
);
INSERT INTO "fine_tuned_models" VALUES(1,'ft:gpt-3.5-turbo-0125:local:emoji-v1:abcdefgh',1790000000,'ftjob-B33EXVtt5QTcNnCC4ffZvb5h','smollm2-135m-instruct','gpt-3.5-turbo-0125','ftjob-B33EXVtt5QTcNnCC4ffZvb5h-step-1',NULL);
CREATE TABLE job_checkpoints (
	number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	id VARCHAR NOT NULL, 
	job_id VARCHAR NOT NULL, 
	created_at INTEGER NOT NULL, 
	model VARCHAR NOT NULL, 
	step INTEGER NOT NULL, 
	metrics JSON NOT NULL, 
	CONSTRAINT one_checkpoint_a_step UNIQUE (job_id, step), 
	UNIQUE (id), 
	FOREIGN KEY(job_id) REFERENCES jobs (id)
);
INSERT INTO "job_checkpoints" VALUES(1,'ftckpt_hrq4EWhVcyGvMjHrQnVlsTkv','ftjob-B33EXVtt5QTcNnCC4ffZvb5h',1795682683,'ft:gpt-3.5-turbo-0125:local:emoji-v1:abcdefgh',1,'{"train_loss": 1.5}');
CREATE TABLE job_events (
	number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	id VARCHAR NOT NULL, 
	job_id VARCHAR NOT NULL, 
	created_at INTEGER NOT NULL, 
	level VARCHAR NOT NULL, 
	type VARCHAR NOT NULL, 
	message VARCHAR NOT NULL, 
	data JSON NOT NULL, 
	"key" VARCHAR, 
	CONSTRAINT one_event_a_key UNIQUE (job_id, "key"), 
	UNIQUE (id), 
	FOREIGN KEY(job_id) REFERENCES jobs (id)
);
INSERT INTO "job_events" VALUES(1,'ftevent-W82RDGYzZ4fNiToyEMQFz2eK','ftjob-B33EXVtt5QTcNnCC4ffZvb5h',1795682683,'info','message','Created fine-tuning job: ftjob-B33EXVtt5QTcNnCC4ffZvb5h','{}','created');
INSERT INTO "job_events" VALUES(2,'ftevent-mHkWWkMQuIEMCKWbUfppS35q','ftjob-B33EXVtt5QTcNnCC4ffZvb5h',1795682683,'info','message','Validating training file: file-vJsaRVWBxEb7fllMnPeBcMn3','{}','validating');
CREATE TABLE jobs (
	number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	id VARCHAR NOT NULL, 
	created_at INTEGER NOT NULL, 
	finished_at INTEGER, 
	status VARCHAR NOT NULL, 
	model VARCHAR NOT NULL, 
	training_file VARCHAR NOT NULL, 
	validation_file VARCHAR, 
	suffix VARCHAR, 
	seed INTEGER NOT NULL, 
	hyperparameters JSON NOT NULL, 
	method JSON, 
	metadata JSON, 
	integrations JSON NOT NULL, 
	error JSON, 
	fine_tuned_model VARCHAR, 
	trained_tokens INTEGER, 
	estimated_finish INTEGER, 
	result_files JSON NOT NULL, 
	worker VARCHAR, 
	lease_expires_at FLOAT, 
	UNIQUE (id)
);
INSERT INTO "jobs" VALUES(1,'ftjob-B33EXVtt5QTcNnCC4ffZvb5h',1795682683,1790000000,'succeeded','gpt-3.5-turbo-0125','file-vJsaRVWBxEb7fllMnPeBcMn3',NULL,NULL,1984479654,'{"n_epochs": 3}',NULL,'{"a": "b"}','[]',NULL,'ft:gpt-3.5-turbo-0125:local:emoji-v1:abcdefgh',NULL,NULL,'[]',NULL,NULL);
CREATE TABLE responses (
	number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	id VARCHAR NOT NULL, 
	created_at INTEGER NOT NULL, 
	previous_response_id VARCHAR, 
	response JSON NOT NULL, 
	input_items JSON NOT NULL, 
	UNIQUE (id)
);
INSERT INTO "responses" VALUES(1,'resp_old',1790000000,NULL,'{"id": "resp_old", "output": []}','[]');
CREATE TABLE upload_parts (
	number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	id VARCHAR NOT NULL, 
	upload_id VARCHAR NOT NULL, 
	created_at INTEGER NOT NULL, 
	bytes INTEGER NOT NULL, 
	UNIQUE (id), 
	FOREIGN KEY(upload_id) REFERENCES uploads (id)
);
CREATE TABLE uploads (
	number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	id VARCHAR NOT NULL, 
	created_at INTEGER NOT NULL, 
	expires_at INTEGER NOT NULL, 
	filename VARCHAR NOT NULL, 
	purpose VARCHAR NOT NULL, 
	bytes INTEGER NOT NULL, 
	status VARCHAR NOT NULL, 
	file_seconds INTEGER, 
	file_id VARCHAR, 
	UNIQUE (id)
);
INSERT INTO "uploads" VALUES(1,'upload_0LfHQfHWr9F5ZctYkrEHPvEA',1795682683,1795686283,'u.jsonl','fine-tune',3,'pending',NULL,NULL);
CREATE INDEX files_by_content ON files (sha256);
CREATE INDEX jobs_by_status ON jobs (status);
CREATE INDEX events_by_job ON job_events (job_id, number);
CREATE INDEX parts_by_upload ON upload_parts (upload_id);
CREATE INDEX batches_by_status ON batches (status);
CREATE INDEX creations_by_content ON creations (path, digest);
CREATE UNIQUE INDEX creations_by_key ON creations (path, "key");
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('files',2);
INSERT INTO "sqlite_sequence" VALUES('jobs',1);
INSERT INTO "sqlite_sequence" VALUES('job_events',2);
INSERT INTO "sqlite_sequence" VALUES('job_checkpoints',1);
INSERT INTO "sqlite_sequence" VALUES('fine_tuned_models',1);
INSERT INTO "sqlite_sequence" VALUES('uploads',1);
INSERT INTO "sqlite_sequence" VALUES('batches',1);
INSERT INTO "sqlite_sequence" VALUES('batch_results',1);
INSERT INTO "sqlite_sequence" VALUES('chat_completions',1);
INSERT INTO "sqlite_sequence" VALUES('responses',1);
INSERT INTO "sqlite_sequence" VALUES('checkpoint_permissions',1);
INSERT INTO "sqlite_sequence" VALUES('creations',1);
COMMIT;
